"""One file that needs no other, and nothing lost on the way."""

import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import GMVAE, datasets
from tests.model.helpers import build, fitted

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    cells = datasets.blobs(300, 30, n_clusters=3, n_conditions=2, kind="count")
    model = fitted("GMVAE", cells, train={"max_epochs": 20})
    columns = list(cells.obs), list(cells.obsm), list(cells.uns)
    path = tmp_path_factory.mktemp("report") / "report.html"
    model.report(path, batch_key="condition")
    assert (list(cells.obs), list(cells.obsm), list(cells.uns)) == columns
    return model, path


def test_the_page_needs_no_other_file(written):
    model, path = written
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5e6
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert not re.findall(r"https?://(?!www.w3.org)", text)
    for name in ("Clusters", "What not to trust", "Evidence of each split", "Marker genes", "Batches", "Methods"):
        assert f"<h2>{name}</h2>" in text
    assert text.count("<img ") == text.count("alt=")
    assert all(f">{name}</td>" in text for name in model.cluster_names)
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_kept(written):
    model, path = written
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        model.report(path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="is not a folder"):
        model.report(path.parent / "nowhere" / "report.html")
    with pytest.raises(KeyError, match="no column 'donor'"):
        model.report(path, batch_key="donor", overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", [0, 1])  # dark and light
def test_a_browser_shows_the_page(written, tmp_path, scheme):
    _, path = written
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += [f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=5000"]
    run = {"capture_output": True, "check": True, "timeout": 120}
    found = subprocess.run([BROWSER, *options, "--dump-dom", path.as_uri()], **run)
    assert b"What not to trust</h2>" in found.stdout
    picture = tmp_path / "page.png"
    subprocess.run([BROWSER, *options, f"--screenshot={picture}", "--window-size=1000,1500", path.as_uri()], **run)
    assert (plt.imread(picture)[..., :3].mean() > 0.6) == bool(scheme)
    printed = tmp_path / "page.pdf"
    subprocess.run([BROWSER, *options, f"--print-to-pdf={printed}", path.as_uri()], **run)
    assert printed.read_bytes().startswith(b"%PDF")


def test_odd_names_are_drawn_as_they_are(tmp_path):
    cells = datasets.blobs(150, 30, n_clusters=3, n_conditions=2, kind="count")
    cells.var_names = ["$x^{$", "_gene", "<b>", *cells.var_names[3:-1], "<b>"]  # one of them twice
    cells.obs["run"] = np.where(cells.obs["condition"] == "condition 0", "_a", "$b")
    model = fitted("GMVAE", cells, train={"max_epochs": 20})
    model.rename_clusters({"0": "$x^{$", "1": "<script>"})
    model.report(tmp_path / "report.html", batch_key="run")
    text = (tmp_path / "report.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_what_was_not_kept_is_left_out(tmp_path):
    cells = datasets.blobs(150, 30, n_clusters=3, kind="count")
    model = fitted("GMVAE", cells, train={"max_epochs": 10, "check_val_every_n_epoch": 5})
    model.report(tmp_path / "some.html")
    text = (tmp_path / "some.html").read_text()
    assert "Training took 10 epochs" in text
    assert "trained for 10 epochs" in text
    assert "nan" not in text.split("data:image")[0]
    silent = fitted("GMVAE", cells, train={"logger": False})
    silent.report(tmp_path / "silent.html", n_clusters=2)
    assert "Training</h2>" not in (tmp_path / "silent.html").read_text()


def test_a_report_is_of_the_cells_of_the_training(tmp_path):
    cells = datasets.blobs(150, 30, n_clusters=3, n_conditions=2, kind="count")
    model = fitted("GMVAE", cells, {"batch_key": "condition"})
    model.save(tmp_path / "model")
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="loaded without data"):
        GMVAE.load(tmp_path / "model", adata=False).report(path)
    with pytest.raises(ValueError, match=r"report\(\) needs"):
        model.map(cells[:50].copy()).report(path)
    with pytest.raises(RuntimeError, match="train"):
        build("GMVAE", cells).report(path)
    assert not path.exists()
    one = fitted("GMVAE", cells, n_clusters=1)
    one.report(path, n_clusters=3)  # another level than the model's
    assert "<b>3</b><span>clusters</span>" in path.read_text()


def test_values_that_are_no_counts_and_one_cluster_have_a_page(tmp_path):
    real = fitted("GMVAE", datasets.blobs(120, 10, n_clusters=3))
    real.report(tmp_path / "real.html")
    text = (tmp_path / "real.html").read_text()
    assert "these values are not counts" in text.lower()
    assert "Marker genes</h2>" not in text
    assert "probabilities are not calibrated" in text
    one = fitted("GMVAE", datasets.blobs(120, 10, n_clusters=1, kind="count"), n_clusters=1)
    one.report(tmp_path / "one.html")
    assert "Evidence of each split</h2>" not in (tmp_path / "one.html").read_text()
