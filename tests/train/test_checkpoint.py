"""A run that was stopped and goes on has the history and the weights of one that nothing stopped."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch import Callback

from mixvi._file import write_file
from tests.model.helpers import build
from tests.train.helpers import Press, checkpoint

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def counts(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    return counts


def same(one, other):
    """Whether two models have the same history, weights and clusters.

    Two equal fits that nothing stops differ by 1e-8 in about one of a hundred cases: matrix products are rounded in
    another way. Any other seed, order of cells or rate makes differences above 1e-3.
    """
    assert one.history.keys() == other.history.keys()
    for name, losses in one.history.items():
        pd.testing.assert_frame_equal(losses, other.history[name], check_dtype=False)
    for (name, value), found in zip(one.module.state_dict().items(), other.module.state_dict().values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6, msg=name)
    np.testing.assert_array_equal(one.train_indices, other.train_indices)
    np.testing.assert_allclose(one.get_latent_representation(), other.get_latent_representation(), rtol=1e-4, atol=1e-5)


def go(name, counts, setup, n_epochs=6, *, press=None, path=None, model=None, **kwargs):
    """Train a model, and let a signal stop it at the start of epoch ``press``."""
    scvi.settings.seed = 1
    model = build(name, counts, setup) if model is None else model
    if path is not None:
        scvi.settings.seed = 2  # the checkpoint has what is random
    kwargs |= {"callbacks": [] if press is None else [Press(signal.SIGINT, press)]}
    if path is not None:
        kwargs["ckpt_path"] = path
    if press is None:
        model.train(n_epochs, **QUIET, **kwargs)
    else:
        with pytest.raises(KeyboardInterrupt):
            model.train(n_epochs, **QUIET, **kwargs)
    return model


@pytest.mark.parametrize("same_object", [True, False])
@pytest.mark.parametrize("epoch", [0, 2, 3, 5])  # the components are placed in epoch 3
@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("AE", {}),
        ("VAE", {}),
        ("CVAE", {"batch_key": "condition"}),
        ("GMVAE", {}),
        ("GMVAE", {"batch_key": "condition", "labels_key": "label", "unlabeled_category": "?"}),
    ],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(counts, tmp_path, name, setup, epoch, same_object):
    whole = go(name, counts, setup)
    stopped = go(name, counts, setup, press=epoch)
    same(whole, go(name, counts, setup, path=checkpoint(tmp_path), model=stopped if same_object else None))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"early_stopping": True, "early_stopping_patience": 2, "batch_size": 16},
        {"plan_kwargs": {"reduce_lr_on_plateau": True, "lr_patience": 1, "n_steps_kl_warmup": 9}, "batch_size": 16},
        {"train_size": 1.0, "plan_kwargs": {"optimizer": "AdamW", "n_epochs_kl_warmup": 4}, "n_importance_samples": 2},
        {"data_path": "stream", "batch_size": 16},
    ],
)
def test_settings_of_training_go_on_too(counts, tmp_path, kwargs):
    whole = go("VAE", counts, {}, 8, **kwargs)
    go("VAE", counts, {}, 8, press=3, **kwargs)
    same(whole, go("VAE", counts, {}, 8, path=checkpoint(tmp_path), **kwargs))


def test_a_second_training_goes_on_too(counts, tmp_path):
    twice = [go("GMVAE", counts, {}) for _ in range(2)]
    whole, stopped = (
        go("GMVAE", counts, {}, 4, press=press, model=model) for model, press in zip(twice, (None, 2), strict=True)
    )
    path = checkpoint(tmp_path)
    assert len(whole.history["elbo_train"]) == 10
    same(whole, go("GMVAE", counts, {}, 4, path=path, model=stopped))
    same(whole, go("GMVAE", counts, {}, 4, path=path))


def test_a_run_may_be_stopped_again(counts, tmp_path):
    whole = go("GMVAE", counts, {}, 8)
    go("GMVAE", counts, {}, 8, press=2)
    first = checkpoint(tmp_path)
    go("GMVAE", counts, {}, 8, press=5, path=first)
    Path(first).unlink()
    same(whole, go("GMVAE", counts, {}, 8, path=checkpoint(tmp_path)))


class PressAtTheEnd(Callback):
    """A signal before clusters are calibrated, which the last callback does."""

    def on_fit_end(self, trainer, plan):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_while_clusters_are_calibrated_loses_nothing(counts, tmp_path):
    whole = go("GMVAE", counts, {})
    scvi.settings.seed = 1
    stopped = build("GMVAE", counts)
    with pytest.raises(SystemExit):
        stopped.train(6, callbacks=[PressAtTheEnd()], **QUIET)
    same(whole, stopped)
    same(whole, go("GMVAE", counts, {}, path=checkpoint(tmp_path)))


KILLED = """
import os, signal, sys
import numpy as np, scvi
from lightning.pytorch import Callback
from tests.model.helpers import build
import mixvi

class Kill(Callback):
    def on_train_batch_end(self, trainer, plan, *args):
        if trainer.current_epoch == 4:
            os.kill(os.getpid(), signal.SIGKILL)

scvi.settings.logging_dir = sys.argv[1]
scvi.settings.seed = 1
model = build("VAE", mixvi.datasets.blobs(200, 12, seed=0))
model.train(6, accelerator="cpu", enable_progress_bar=False, checkpoint_minutes=0, callbacks=[Kill()], batch_size=32)
"""


def test_sigkill_costs_one_epoch(tmp_path, monkeypatch):
    from mixvi import datasets

    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True).returncode == -signal.SIGKILL
    adata, kwargs = datasets.blobs(200, 12, seed=0), {"batch_size": 32}
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    again = go("VAE", adata, {}, path=checkpoint(tmp_path), **kwargs)
    whole = go("VAE", adata, {}, **kwargs)
    assert len(whole.history["elbo_train"]) == len(again.history["elbo_train"]) == 6
    for one, other in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)  # processes may have other numbers of threads


def test_a_run_that_ends_leaves_no_file(counts, tmp_path):
    go("VAE", counts, {}, checkpoint_minutes=0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_no_training(counts, tmp_path, monkeypatch, caplog):
    """A test cannot fill the disk, so that the function that writes to it fails as on a full one."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mixvi.train._checkpoint.write_file", full)
    model = go("VAE", counts, {}, checkpoint_minutes=0)
    assert re.search("No checkpoint could be written to .*No space left", caplog.text)
    assert len(model.history["elbo_train"]) == 6


@pytest.mark.parametrize("minutes", [-1, np.nan, "1", True])
def test_minutes_are_a_number(counts, minutes):
    with pytest.raises(ValueError, match="checkpoint_minutes"):
        go("VAE", counts, {}, checkpoint_minutes=minutes)


def test_damage_is_refused(counts, tmp_path):
    go("VAE", counts, {}, press=2)
    path = Path(checkpoint(tmp_path))
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 20).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="is damaged|is not a checkpoint"):
            go("VAE", counts, {}, path=str(path))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        go("VAE", counts, {}, path=str(path))
    write_file(path, {"state_dict": {}}, "checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint of this VAE"):
        go("VAE", counts, {}, path=str(path))
