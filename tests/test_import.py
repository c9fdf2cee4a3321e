"""What a user does not need must not wait for it."""

import subprocess
import sys

import pytest

import mixvi

HEAVY = {"torch", "scvi", "scanpy", "anndata", "lightning", "matplotlib", "pandas"}


@pytest.mark.parametrize("code", ["import mixvi; dir(mixvi)", "import mixvi.cli"])
def test_import_is_light(code):
    script = f"{code}; import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(("setup", "lines"), [("", 0), ("logging.basicConfig(level='INFO'); ", 1)])
def test_messages_are_shown_once_and_only_where_asked_for(setup, lines):
    script = f"import logging; {setup}import mixvi; logging.getLogger('mixvi.model').info('said')"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (out.stdout + out.stderr).count("said") == lines


def test_every_name_is_there():
    for name in mixvi.__all__:
        assert getattr(mixvi, name) is not None
        assert name in dir(mixvi)
    with pytest.raises(AttributeError, match="no attribute 'PCA'"):
        mixvi.PCA  # noqa: B018
