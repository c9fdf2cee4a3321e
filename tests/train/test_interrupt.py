"""A signal ends training between two steps, and nothing is lost."""

import os
import signal

import numpy as np
import pytest
import scvi
import torch

import mixvi
from mixvi.module import VAEModule
from tests.model.helpers import build
from tests.train.helpers import Press, checkpoint, learned


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("epoch", [2, 5, 7])  # before, while and after the components are placed
def test_an_interrupted_model_is_usable_and_goes_on(counts, tmp_path, monkeypatch, number, raised, epoch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    model = build("GMVAE", counts)
    with pytest.raises(raised):
        model.train(10, callbacks=[Press(number, epoch)], **quiet)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(model.history["elbo_train"]) == epoch
    placed = epoch >= 5
    assert bool(model.module.prior.placed) == placed
    assert set(model.predict()) <= (set(model.cluster_names) if placed else {"0"})
    assert np.isfinite(model.get_elbo())


def test_a_falling_learning_rate_goes_on_where_it_was(counts, tmp_path, monkeypatch):
    """In the same model, and with more epochs to come, it does not rise again."""
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    monkeypatch.setattr("mixvi.cluster.vat.learn_classes", learned)
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    model, other = (build("GMVAE", counts, setup, n_clusters=None, init="vat") for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        model.train(10, callbacks=[Press(signal.SIGINT, 7)], **quiet)

    def last_rate(model, epochs):
        model.train(epochs, ckpt_path=checkpoint(tmp_path), **quiet)
        (group,) = model.trainer.optimizers[0].param_groups
        return group["lr"] / group["initial_lr"]

    assert last_rate(model, 10) == pytest.approx(1 / 5)  # in the last of five epochs since the components were placed
    assert last_rate(other, 14) == pytest.approx(1 / 9)


def test_a_checkpoint_is_read_by_its_own_model_only(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    cells, others = counts[:100].copy(), counts[20:].copy()
    one, two = build("VAE", cells), build("VAE", others)
    for model in (one, two):
        with pytest.raises(KeyboardInterrupt):
            model.train(5, callbacks=[Press(signal.SIGINT, 0)], **quiet)
    first, second = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    for path, model in ((first, two), (second, one), (first, build("VAE", cells, n_hidden=8))):
        with pytest.raises(ValueError, match="is not a checkpoint of this VAE: class, settings, setup, cells, genes"):
            model.train(5, ckpt_path=str(path), **quiet)
    build("VAE", cells).train(5, ckpt_path=str(first), **quiet)
    one.train(5, ckpt_path=str(first), **quiet)
    assert len(one.history["elbo_train"]) == 5
    with pytest.raises(ValueError, match="There is no checkpoint nowhere.ckpt"):
        one.train(5, ckpt_path="nowhere.ckpt", **quiet)


class RunsCode:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("content", [lambda code: code, lambda code: {"state_dict": code}, lambda code: [1]])
def test_a_checkpoint_runs_no_code(counts, tmp_path, content):
    torch.save(content(RunsCode(tmp_path / "ran")), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="a.ckpt is not a checkpoint that mixvi saved"):
        build("VAE", counts).train(2, ckpt_path=str(tmp_path / "a.ckpt"), accelerator="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_second_signal_is_not_held_back(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    model = build("VAE", counts)

    class Twice(Press):
        def on_train_epoch_start(self, trainer, plan):
            os.kill(os.getpid(), self.number)
            os.kill(os.getpid(), self.number)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        model.train(10, callbacks=[Twice(signal.SIGINT, 0)], enable_progress_bar=False, accelerator="cpu")
    assert not list(tmp_path.glob("*.ckpt"))
    assert isinstance(model, mixvi.VAE)


def test_a_checkpoint_that_cannot_be_written_costs_nothing(counts, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path / "file")
    model = build("VAE", counts)
    with pytest.raises(KeyboardInterrupt):
        model.train(10, callbacks=[Press(signal.SIGINT, 2)], enable_progress_bar=False, accelerator="cpu")
    assert np.isfinite(model.get_elbo())


def test_a_fit_to_all_cells_at_once_ends_and_goes_on(monkeypatch):
    """Such a fit calls nothing of the user, so that the bound sends the signal."""
    adata = mixvi.datasets.blobs(300, 20)
    whole, broken = (build("VAE", adata, linear=True) for _ in range(2))
    whole.train(enable_progress_bar=False)
    bound, n_calls = VAEModule.bound, []

    def press(module, cells):
        n_calls.append(None)
        if len(n_calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return bound(module, cells)

    monkeypatch.setattr(VAEModule, "bound", press)
    with pytest.raises(KeyboardInterrupt):
        broken.train(enable_progress_bar=False)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(broken.history["elbo_train"]) == 1
    assert broken.get_elbo() < whole.get_elbo()
    broken.train(enable_progress_bar=False)
    assert len(broken.history["elbo_train"]) > 1
    assert broken.get_elbo() == pytest.approx(whole.get_elbo(), rel=1e-5)
