"""Two processes train one model: in step, one history, and as well as one process does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.ddp_script import BATCH_SIZE, EPOCHS, train


def test_two_processes(tmp_path):
    name = "GMVAE"  # it has all that the others have, and components to place in step
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.train.ddp_script", name, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1))
    assert (first.pop("epochs"), second.pop("epochs")) == (EPOCHS, 0)  # the first process writes the history
    first_elbo, second_elbo = first.pop("elbo"), second.pop("elbo")  # one draw of z each
    assert first_elbo == pytest.approx(second_elbo, rel=0.02)
    for key, values in first.items():  # weights, running means, components, latents
        np.testing.assert_array_equal(values, second[key], err_msg=key)
    alone = train(name, BATCH_SIZE)
    assert first["steps"] == alone.trainer.global_step
    assert first_elbo == pytest.approx(alone.get_elbo(), rel=0.1)
