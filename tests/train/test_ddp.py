"""Two processes train one model: in step, one history, and as well as one process does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.train.ddp_script import BATCH_SIZE, EPOCHS, train


def test_two_processes(tmp_path):
    name = "GMVAE"  # it has all that the others have, and components to place in step
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.train.ddp_script", name, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    elbo = first.pop("elbo")
    assert (len(elbo), len(second.pop("elbo"))) == (EPOCHS, 0)  # the first process writes the history
    for key, values in first.items():  # weights, running means, components, latents
        np.testing.assert_array_equal(values, second[key], err_msg=key)

    alone, other = train(name, BATCH_SIZE), train(name, BATCH_SIZE, seed=1)
    assert first["steps"] == alone.trainer.global_step
    assert elbo[-1] == pytest.approx(alone.history["elbo_train"].iloc[-1, 0], rel=0.02)
    z, z_alone, z_other = first["z"], alone.get_latent_representation(), other.get_latent_representation()
    assert agreement(z, z_alone) > agreement(z_other, z_alone) - 0.02  # noise: what another seed does


def agreement(first, second):
    """Share of the variance of the second latent space that a linear map of the first explains."""
    residual = second - LinearRegression().fit(first, second).predict(first)
    return 1 - residual.var(0).sum() / second.var(0).sum()
