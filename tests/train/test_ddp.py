"""Two processes train one model: in step, one history, and what one process with their joint batch would do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.ddp_script import EPOCHS, train


@pytest.fixture
def two_processes(tmp_path):
    """What each process holds after training the model of a name."""

    def run(name):
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "tests.train.ddp_script", name, str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
        return [dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1)]

    return run


def test_processes_stay_in_step(two_processes):
    first, second = two_processes("GMVAE")
    elbo = first.pop("elbo")
    assert (len(elbo), len(second.pop("elbo"))) == (EPOCHS["GMVAE"], 0)  # the first process writes the history
    for key, values in first.items():  # weights, running means, components, latents
        np.testing.assert_array_equal(values, second[key], err_msg=key)

    alone = train("GMVAE")
    assert first["steps"] == alone.trainer.global_step
    assert elbo[-1] == pytest.approx(alone.history["elbo_train"].iloc[-1, 0], rel=0.02)


def test_two_halves_of_a_batch_are_the_batch(two_processes):
    """Without noise the latents are those of one process, not merely like them."""
    first, second = two_processes("AE")
    alone, other = train("AE"), train("AE", seed=1)
    z = alone.get_latent_representation()
    np.testing.assert_allclose(first["z"], z, atol=1e-3 * np.abs(z).max())
    np.testing.assert_allclose(first["elbo"], alone.history["elbo_train"].astype(float).to_numpy().ravel(), rtol=1e-4)
    assert np.abs(other.get_latent_representation() - z).max() > 0.1 * np.abs(z).max()  # there is something to tell
