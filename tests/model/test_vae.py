"""VAE: a standard normal prior, and a variance of real values that is learned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from mixvi import datasets
from tests.model.helpers import fitted


def test_new_places_are_standard_normal(counts):
    model = fitted("VAE", counts)
    z = model._draw_latent(SimpleNamespace(c=torch.zeros(5000, 0)), None).numpy()
    assert z.shape == (5000, 3)
    assert all(kstest(column, "norm").pvalue > 1e-4 for column in z.T)
    assert np.abs(np.corrcoef(z.T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(5000)


def test_the_learned_variance_is_that_of_the_noise():
    """Two dimensions and noise of standard deviation 0.5: the likelihood has no more to explain."""
    model = fitted("VAE", datasets.blobs(600, 30), linear=True, n_latent=2, train={"max_epochs": 200})
    assert model.module.likelihood.log_sigma.exp().item() == pytest.approx(0.5, rel=0.03)
