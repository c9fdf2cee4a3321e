"""Trains a model in two CPU processes; each saves what it has. Run by test_ddp.py: name of the model, folder."""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from mixvi import datasets
from tests.model.helpers import build

EPOCHS, BATCH_SIZE = 16, 64


def train(name, batch_size, seed=0, **options):
    torch.manual_seed(seed)
    model = build(name, datasets.blobs(400, 20, n_clusters=3, n_conditions=2, kind="count"))
    options |= {"accelerator": "cpu", "enable_progress_bar": False, "plan_kwargs": {"lr": 0.01}}
    model.train(EPOCHS, batch_size=batch_size, **options)
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = train(sys.argv[1], BATCH_SIZE // 2, devices=2, strategy="ddp_find_unused_parameters_true")
    state = {key: value.numpy() for key, value in model.module.state_dict().items()}
    rank = os.environ.get("LOCAL_RANK", "0")
    np.savez(
        Path(sys.argv[2]) / f"{rank}.npz", z=model.get_latent_representation(), steps=model.trainer.global_step,
        elbo=[float(value) for value in np.ravel(model.history.get("elbo_train", []))], **state,
    )  # fmt: skip
