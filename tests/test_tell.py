"""What is shown by default: a line at the start of training, one at its end, and nothing of other packages."""

import logging
import re
import subprocess
import sys
import warnings

import pytest
import scvi

from mixvi._tell import quiet, tell, untold
from tests.model.helpers import fitted

ALLOWED = "ignore:The 'future.infer_string' option"  # anndata with pandas 3, whenever an AnnData is made

FIT = """
import logging, sys, tempfile
import mixvi, scvi
{setup}
for name in sys.argv[1:]:
    adata = mixvi.datasets.blobs(90, 20, n_clusters=3, n_conditions=2, kind="count")
    cls = getattr(mixvi, name)
    cls.setup_anndata(adata, batch_key="condition" if name == "CVAE" else None)
    model = cls(adata)
    model.train(3, enable_progress_bar=False, accelerator="cpu")
    model.annotate()
    query = mixvi.datasets.blobs(30, 18, n_clusters=3, kind="count")  # two genes fewer, and another batch
    query.obs["condition"] = "later"
    mapped = model.map(query)
    mapped.annotate(query)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder + "/model", save_anndata=True)
        mapped.save(folder + "/mapped", save_anndata=True)
        cls.load(folder + "/model").sample(3)
        cls.load(folder + "/mapped").annotate(query)
    model.minify_adata()
    model.annotate()
"""


def shown(*names, setup=""):
    """The lines that a process shows which fits, maps, saves and minifies models, with each warning as an error."""
    command = [sys.executable, "-W", "error", "-W", ALLOWED, "-c", FIT.format(setup=setup), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).splitlines()
    return [re.sub("^INFO ", "", " ".join(line.split())) for line in lines if line.strip()]


def test_a_fit_shows_two_lines_and_no_warning():
    lines = shown("VAE", "GMVAE", "CVAE", "AE")
    for name, start, end in zip(("VAE", "GMVAE", "CVAE", "AE"), lines[::2], lines[1::2], strict=True):
        assert start == f"{name} of 90 cells x 20 genes: 3 epochs on cpu."
        assert re.fullmatch(rf"{name} trained for 3 epochs in \d+\.\d s\.", end)


@pytest.mark.parametrize(
    ("setup", "n_lines"),
    [
        ("scvi.settings.verbosity = 'WARNING'", 0),
        ("logging.getLogger('mixvi').setLevel('WARNING')", 0),
        ("logging.getLogger('mixvi').addHandler(logging.StreamHandler())", 2),
        ("logging.basicConfig(level='ERROR')", 2),
    ],
)
def test_the_lines_can_be_turned_off_and_are_shown_once(setup, n_lines):
    assert len(shown("VAE", setup=setup)) == n_lines


def test_a_configured_logger_has_the_lines(caplog, counts):
    fitted("VAE", counts)
    fitted("AE", counts, train={"max_epochs": 2}, linear=True, likelihood="normal")
    lines = [record.getMessage() for record in caplog.records if record.name == "mixvi._tell"]
    assert lines[0] == "VAE of 120 cells x 30 genes: 4 epochs on cpu."
    assert lines[2] == "AE of 120 cells x 30 genes: 2 epochs on cpu."
    assert [line.split(" in ")[0] for line in lines[1::2]] == [
        "VAE trained for 4 epochs",
        "AE trained for 2 epochs",
    ]


TELL = """
import logging, warnings
import mixvi, scvi
from mixvi._tell import tell
warnings.filterwarnings("ignore")
{setup}
tell("the path", logging.WARNING)
"""


@pytest.mark.parametrize(
    "setup",
    [
        "",
        "scvi.settings.verbosity = 'WARNING'",
        "logging.getLogger('mixvi').setLevel('WARNING')",
        "logging.getLogger('mixvi').addHandler(logging.StreamHandler())",
        "logging.basicConfig()",
    ],
)
def test_what_would_be_lost_is_told_once_where_warnings_are_ignored(setup):
    done = subprocess.run([sys.executable, "-c", TELL.format(setup=setup)], capture_output=True, text=True, check=True)
    assert (done.stdout + done.stderr).count("the path") == 1


def test_many_models_in_one_call_are_trained_without_lines(caplog):
    with untold():
        tell("of many")
        tell("stopped", logging.WARNING)
    tell("of one")
    assert caplog.messages == ["stopped", "of one"]


def test_announcements_are_quiet_for_a_while_and_warnings_are_not(caplog):
    caplog.set_level(logging.DEBUG)
    usual, own = logging.getLogger("tests.usual"), logging.getLogger("tests.own")
    usual.setLevel(logging.INFO)
    own.setLevel(logging.DEBUG)
    with quiet("tests.usual", "tests.own"):
        usual.info("advertisement")
        usual.error("fatal")
        own.debug("asked for")
    usual.info("later")
    assert caplog.messages == ["fatal", "asked for", "later"]


def test_levels_and_filters_are_as_before_after_training(counts):
    names = ("lightning.pytorch", "lightning.fabric", "scvi", "mixvi")
    before = [logging.getLogger(name).level for name in names], list(warnings.filters), scvi.settings.verbosity
    fitted("VAE", counts)
    assert ([logging.getLogger(name).level for name in names], warnings.filters, scvi.settings.verbosity) == before
