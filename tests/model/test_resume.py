"""What a checkpoint belongs to, and how a stopped training ends."""

import signal
from pathlib import Path

import numpy as np
import pytest
import scvi

from mixvi._file import read_file, write_file
from mixvi.model._resume import identity_of, pass_on
from mixvi.train import OURS, Interruption
from tests.model.helpers import build
from tests.train.helpers import Press, checkpoint

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def test_models_of_the_same_cells_and_settings_are_the_same(counts):
    one = identity_of(build("VAE", counts))
    assert identity_of(build("VAE", counts.copy())) == one
    reordered = counts[:, ::-1].copy()
    others = [build("AE", counts), build("VAE", counts, n_latent=2), build("VAE", counts[:100].copy())]
    assert len({one, identity_of(build("VAE", reordered)), *map(identity_of, others)}) == 5


def test_columns_and_parts_of_the_cells_tell_models_apart(counts):
    parts = np.arange(counts.n_obs) // 60
    other = counts.copy()
    other.obs["condition"] = other.obs["condition"].to_numpy()[::-1].copy()
    models = [
        build("CVAE", counts),
        build("CVAE", other),
        *(build("GMVAE", counts, init=p) for p in (parts, np.arange(counts.n_obs) % 2)),
    ]
    assert len(set(map(identity_of, models))) == 4


def test_a_training_goes_on_with_its_own_data_and_settings(counts, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        build("VAE", counts).train(5, callbacks=[Press(signal.SIGINT, 2)], plan_kwargs={"lr": 0.01}, **quiet)
    (path,) = map(str, tmp_path.glob("*.ckpt"))
    other = counts.copy()
    other.X = other.X[::-1].copy()
    as_then = {"max_epochs": 5, "plan_kwargs": {"lr": 0.01}, "ckpt_path": path}
    for cells, change, message in (
        (other, {}, "values or registered columns differ"),
        (counts, {"plan_kwargs": {"weight_decay": 0.1}}, r"lr=0.01 \(now 0.001\), weight_decay=default \(now 0.1\)"),
        (counts, {"batch_size": 64}, r"batch_size=128 \(now 64\)"),
        (counts, {"train_size": 0.5}, r"train_size=None \(now 0.5\)"),
        (counts, {"max_epochs": 1}, "was written in epoch 2, which is beyond max_epochs=1"),
        (counts, {"ckpt_path": str(tmp_path)}, "is a folder; pass the path of the .ckpt file"),
    ):
        with pytest.raises(ValueError, match=message):
            build("VAE", cells).train(**as_then | change, **quiet)
    build("VAE", counts).train(**as_then, **quiet)


@pytest.mark.parametrize("lacks", ["loops", "optimizer_states", "history", "random", "start"])
def test_a_checkpoint_that_lacks_something_is_refused(counts, tmp_path, monkeypatch, lacks):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="Stopped by SIGINT"):
        build("VAE", counts).train(2, **QUIET, callbacks=[Press(signal.SIGINT, 1)])
    path = checkpoint(tmp_path)
    content = read_file(Path(path), "checkpoint")
    del (content if lacks in content else content[OURS])[lacks]
    write_file(Path(path), content, "checkpoint")
    with pytest.raises(ValueError, match=rf"\.ckpt is not a checkpoint that mixvi can use: .*'{lacks}'"):
        build("VAE", counts).train(2, **QUIET, ckpt_path=path)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (None, None)]
)
def test_a_signal_has_its_usual_effect_afterwards(number, raised, caplog, recwarn):
    interruption = Interruption()
    interruption.received = number
    if raised is None:
        pass_on(interruption, 3, "Go on.")
        return
    with pytest.raises(raised):
        pass_on(interruption, 3, "Go on.")
    said = f"Stopped by {number.name} in epoch 3; the model is usable as it is. Go on."
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [("WARNING", said)]
    assert not recwarn.list  # it is told in one way, which does not depend on filters of warnings
