"""The autoencoder is the squared error (EXACTNESS row 20)."""

from functools import partial

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from mixvi.module import AEModule, Layout
from mixvi.module.likelihoods import Normal
from tests.module.bounds import HIDDEN, D, G, ready


def test_row_20_ae_is_squared_error(tensors):
    sigma = 0.7
    module = ready(AEModule(Layout(G), partial(Normal, sigma=sigma), D, HIDDEN))
    output = module(tensors)
    x, mean = tensors[REGISTRY_KEYS.X_KEY], output[1]["px"].mean
    constant = G * np.log(sigma * np.sqrt(2 * np.pi))
    expected = ((x - mean) ** 2).sum(-1).mean() / (2 * sigma**2) + constant
    torch.testing.assert_close(output[2].loss, expected, rtol=1e-6, atol=1e-6)
    assert output[2].kl_local_sum == 0
