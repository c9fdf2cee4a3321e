"""What a checkpoint belongs to, and how a stopped training ends."""

import signal
from pathlib import Path

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
def test_a_signal_has_its_usual_effect_afterwards(number, raised):
    interruption = Interruption()
    interruption.received = number
    if raised is None:
        pass_on(interruption, 3, "Go on.")
        return
    with pytest.warns(UserWarning, match=f"Stopped by {number.name} in epoch 3; .* Go on."), pytest.raises(raised):
        pass_on(interruption, 3, "Go on.")
