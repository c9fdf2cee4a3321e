"""What a checkpoint belongs to, and how a stopped training ends."""

import signal

import pytest

from mixvi.model._resume import identity_of, pass_on
from mixvi.train import Interruption
from tests.model.helpers import build


def test_models_of_the_same_cells_and_settings_are_the_same(counts):
    one = identity_of(build("VAE", counts))
    assert identity_of(build("VAE", counts.copy())) == one
    reordered = counts[:, ::-1].copy()
    others = [build("AE", counts), build("VAE", counts, n_latent=2), build("VAE", counts[:100].copy())]
    assert len({one, identity_of(build("VAE", reordered)), *map(identity_of, others)}) == 5


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
