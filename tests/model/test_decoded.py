"""Draws from the posterior, and what the decoder makes of them."""

import numpy as np
import pytest
import torch

from mixvi import datasets
from mixvi.data import CellsDataset
from mixvi.model._decoded import batches_of, resampled
from tests.model.helpers import fitted


@pytest.fixture(scope="module")
def model():
    return fitted("CVAE", datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count"))


def test_importance_weights_draw_nearer_to_the_true_posterior(model):
    """Under a posterior that is made too wide, they raise p(x, z)."""
    module = model.module
    cells = module.read(CellsDataset(model.adata_manager, model.device, resident=False)[np.arange(model.adata.n_obs)])
    head = module.encoder.log_scale
    with torch.inference_mode():
        head.bias += 1.0
        try:
            qz = module.encode(cells)
            plain = module.likelihood.log_prob(qz.rsample(), cells).mean()
            nearer = module.likelihood.log_prob(resampled(model, 25, 10)(cells), cells).mean()
        finally:
            head.bias -= 1.0
    assert nearer > plain


def test_one_batch_or_several():
    assert batches_of("a") == batches_of(["a"]) == ["a"]
    assert batches_of(1) == [1]
