"""The command line."""

import os
import signal
import subprocess
import sys
import tempfile

import anndata as ad
import numpy as np
import pytest
import scvi
from lightning.pytorch import Callback
from typer.testing import CliRunner

import mixvi
from mixvi import cli, datasets


@pytest.fixture
def files(tmp_path):
    """A file of counts, and where to write to."""
    datasets.blobs(80, 20, n_clusters=2, n_conditions=2, kind="count").write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad", tmp_path / "out.h5ad"


def run(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def test_help_names_the_commands():
    result = run("--help")
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "fit" in result.output
    assert "--force" in run("fit", "--help").output


def test_python_m_is_the_command_line():
    out = subprocess.run([sys.executable, "-m", "mixvi", "--version"], capture_output=True, text=True, check=True)
    assert mixvi.__version__ in out.stdout


def test_version():
    assert mixvi.__version__ in run("--version").output


def test_demo_writes_what_it_found(tmp_path):
    result = run("demo", "--out", tmp_path / "demo", "--max-epochs", 4)
    assert result.exit_code == 0, result.output
    assert "Agreement with the shipped labels: ARI" in result.output
    adata = ad.read_h5ad(tmp_path / "demo" / "pbmc68k_reduced.h5ad")
    assert adata.obsm["X_mixvi"].shape == (700, 10)
    n_clusters = adata.obs["mixvi"].nunique()
    assert f"Found {n_clusters} clusters" in result.output
    for name in ("umap.png", "training.png"):
        assert (tmp_path / "demo" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("model", ["ae", "vae", "cvae", "gmvae"])
def test_fit_annotates_a_file_of_the_user(model, files):
    source, out = files
    before = source.read_bytes()
    options = ["--batch-key", "condition"] if model in ("cvae", "gmvae") else []
    result = run("fit", source, "--model", model, "--out", out, "--max-epochs", 2, *options)
    assert result.exit_code == 0, result.output
    adata = ad.read_h5ad(out)
    assert adata.obsm["X_mixvi"].shape == (80, 10)
    assert adata.obs["mixvi"].notna().all()
    assert adata.uns["mixvi"]["model"] == model.upper()
    assert source.read_bytes() == before
    assert sorted(os.listdir(out.parent)) == ["in.h5ad", "out.h5ad"]


def test_fit_draws_figures_where_asked(files, tmp_path):
    source, out = files
    result = run("fit", source, "--out", out, "--max-epochs", 2, "--n-clusters", 2, "--figures", tmp_path / "figures")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path / "figures")) == ["training.png", "umap.png"]


def test_fit_overwrites_only_by_force(files):
    source, out = files
    out.write_text("precious")
    result = run("fit", source, "--out", out, "--max-epochs", 1)
    assert result.exit_code == 1
    assert "exists already" in result.output
    assert "--force" in result.output
    assert out.read_text() == "precious"
    assert run("fit", source, "--out", out, "--max-epochs", 1, "--n-clusters", 2, "--force").exit_code == 0
    assert ad.read_h5ad(out).n_obs == 80


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_the_old_file_whole_and_the_model(files, monkeypatch, stop):
    source, out = files
    out.write_text("precious")

    def interrupted(self, path):
        path.write_text("half a file")
        os.kill(os.getpid(), stop)

    monkeypatch.setattr(ad.AnnData, "write_h5ad", interrupted)
    result = run("fit", source, "--out", out, "--max-epochs", 1, "--n-clusters", 2, "--force")
    assert result.exit_code != 0
    assert out.read_text() == "precious"
    (folder,) = set(os.listdir(out.parent)) - {"in.h5ad", "out.h5ad"}
    assert f"the trained model is in {out.parent / folder}" in " ".join(result.output.split())
    model = mixvi.GMVAE.load(out.parent / folder, ad.read_h5ad(source))
    assert set(model.predict()) <= {"0", "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "counts"], "There is no layer 'counts'"),
        (["--batch-key", "donor"], "no column 'donor'"),
        (["--model", "vae", "--batch-key", "condition"], "use mixvi.CVAE"),
        (["--likelihood", "bernoulli"], "needs values in [0, 1]"),
        (["--model", "ae", "--n-clusters", "3"], "--n-clusters is for gmvae"),
    ],
)
def test_wrong_input_is_one_line(options, message, files):
    source, out = files
    result = run("fit", source, "--out", out, *options)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()


def test_files_that_are_not_there(files, tmp_path):
    source, out = files
    assert "does not exist" in run("fit", tmp_path / "nothing.h5ad", "--out", out).output
    assert "is not a folder" in run("fit", source, "--out", tmp_path / "nowhere" / "out.h5ad").output
    (tmp_path / "text.h5ad").write_text("not an h5ad")
    result = run("fit", tmp_path / "text.h5ad", "--out", out)
    assert (result.exit_code, out.exists()) == (1, False)
    assert f"{tmp_path}/text.h5ad cannot be read" in result.output.replace("\n", "")


def test_a_result_does_not_take_the_place_of_its_input(files):
    source, _ = files
    before = source.read_bytes()
    result = run("fit", source, "--out", source, "--force", "--max-epochs", 1)
    assert (result.exit_code, source.read_bytes()) == (1, before)
    assert "what the command reads" in " ".join(result.output.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_a_checkpoint_to_go_on_from(files, monkeypatch, tmp_path, number):
    monkeypatch.chdir(tmp_path)
    source, out = files

    class Press(Callback):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 1:
                os.kill(os.getpid(), number)

    train = mixvi.GMVAE.train

    def pressed(self, *args, callbacks, **kwargs):
        train(self, *args, callbacks=[*callbacks, Press()], **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mixvi.GMVAE, "train", pressed)
        result = run("fit", source, "--out", out, "--max-epochs", 4, "--n-clusters", 2)
    assert result.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    (checkpoint,) = tmp_path.glob("training-*.ckpt")
    assert f"To continue, repeat the command with --resume {checkpoint}" in result.output.replace("\n", "")
    assert sorted(os.listdir(tmp_path)) == ["in.h5ad", checkpoint.name]
    result = run("fit", source, "--out", out, "--max-epochs", 4, "--n-clusters", 2, "--resume", checkpoint)
    assert result.exit_code == 0, result.output
    assert ad.read_h5ad(out).obs["mixvi"].nunique() == 2
    again = run("fit", source, "--out", out, "--force", "--n-clusters", 3, "--resume", checkpoint)
    assert (again.exit_code, "is not a checkpoint of this GMVAE" in again.output) == (1, True)
    assert "does not exist" in run("fit", source, "--out", out, "--force", "--resume", tmp_path / "no.ckpt").output


def test_the_seed_decides(files, tmp_path):
    source, _ = files
    latents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("fit", source, "--out", tmp_path / f"{name}.h5ad", "--model", "vae", "--max-epochs", 1, "--seed", seed)
        latents.append(ad.read_h5ad(tmp_path / f"{name}.h5ad").obsm["X_mixvi"])
    np.testing.assert_array_equal(latents[0], latents[1])
    assert (latents[0] != latents[2]).any()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_names_no_checkpoint_and_leaves_none(tmp_path, monkeypatch, number):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def train(self, *args, **kwargs):
        (scvi.settings.logging_dir / "training-1.ckpt").write_text("of a run that is stopped")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(mixvi.GMVAE, "train", train)
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "--resume" not in result.output
    assert os.listdir(tmp_path) == []


def test_fit_writes_report_and_model_and_predict_reads_it(files, tmp_path):
    source, out = files
    report, folder = tmp_path / "report.html", tmp_path / "model"
    options = ["--max-epochs", 4, "--n-clusters", 2, "--n-top-genes", 10]
    result = run("fit", source, "--out", out, *options, "--report", report, "--save-model", folder)
    assert result.exit_code == 0, result.output
    assert "marker genes" in result.output
    fitted = ad.read_h5ad(out)
    assert fitted.shape == (80, 20)
    assert "What not to trust" in report.read_text()
    model = mixvi.GMVAE.load(folder, adata=False)
    assert model.summary_stats.n_vars == 10
    result = run("predict", folder, source, "--out", tmp_path / "new.h5ad")
    assert result.exit_code == 0, result.output
    found = ad.read_h5ad(tmp_path / "new.h5ad")
    assert found.shape == (80, 20)
    assert (found.obs["mixvi"].astype(str) == fitted.obs["mixvi"].astype(str)).all()
    result = run("predict", tmp_path / "nothing", source, "--out", tmp_path / "other.h5ad")
    assert result.exit_code == 1
    assert "is not a folder" in result.output
    result = run("fit", source, "--out", tmp_path / "other.h5ad", *options, "--report", report)
    assert result.exit_code == 1
    assert "exists already" in result.output
    assert not (tmp_path / "other.h5ad").exists()
    before = source.read_bytes()
    for target in (source, tmp_path / "other.h5ad", tmp_path / "nowhere" / "report.html"):
        result = run("fit", source, "--out", tmp_path / "other.h5ad", *options, "--report", target, "--force")
        assert result.exit_code == 1
        assert "epochs" not in result.output  # before it trains
    assert source.read_bytes() == before
    result = run("predict", folder, source, "--out", folder / "model.pt", "--force")
    assert result.exit_code == 1
    assert "what the command reads" in " ".join(result.output.split())
    result = run("fit", source, "--out", tmp_path / "other.h5ad", "--model", "vae", "--report", tmp_path / "r.html")
    assert "--report is for gmvae only" in " ".join(result.output.split())
