"""Trains a model in two CPU processes; each saves what it has. Run by test_ddp.py: name of the model, folder."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mixvi import datasets
from mixvi.module.nets import Layer
from tests.model.helpers import build

N_CELLS = 400
EPOCHS = {"GMVAE": 16, "AE": 4}
BATCH_SIZE = {"GMVAE": 64, "AE": N_CELLS}


def train(name, n_processes=1, seed=0, **options):
    """The GMVAE has all that the others have. The AE is bare of noise, and its batch is all cells in any order."""
    torch.manual_seed(seed)
    settings = {} if name == "GMVAE" else {"dropout_rate": 0.0}
    model = build(name, datasets.blobs(N_CELLS, 20, n_clusters=3, n_conditions=2, kind="count"), **settings)
    if name == "AE":
        options |= {"train_size": 1.0}
        for layer in model.module.modules():
            if isinstance(layer, Layer):
                layer.norm = nn.Identity()  # its mean would be that of a process's own cells
    options |= {"accelerator": "cpu", "enable_progress_bar": False, "plan_kwargs": {"lr": 0.01}}
    model.train(EPOCHS[name], batch_size=BATCH_SIZE[name] // n_processes, **options)
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = train(sys.argv[1], 2, devices=2, strategy="ddp_find_unused_parameters_true")
    state = {key: value.numpy() for key, value in model.module.state_dict().items()}
    rank = os.environ.get("LOCAL_RANK", "0")
    np.savez(
        Path(sys.argv[2]) / f"{rank}.npz", z=model.get_latent_representation(), steps=model.trainer.global_step,
        elbo=[float(value) for value in np.ravel(model.history.get("elbo_train", []))], **state,
    )  # fmt: skip
