"""AE: the squared error, and one normal in the place of a prior."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mixvi import datasets
from tests.model.helpers import fitted


@pytest.mark.parametrize("n_latent", [1, 3])
def test_new_places_have_the_mean_and_covariance_of_the_latents(counts, n_latent):
    model = fitted("AE", counts, n_latent=n_latent)
    z = model.get_latent_representation()
    n = 100_000
    drawn = model._draw_latent(SimpleNamespace(x=torch.empty(n, 1)), None).numpy()
    assert drawn.shape == (n, n_latent)
    spread = z.std(0)
    np.testing.assert_allclose(drawn.mean(0) / spread, z.mean(0) / spread, atol=5 / np.sqrt(n))
    found, expected = (np.cov(values.T) / np.outer(spread, spread).squeeze() for values in (drawn, z))
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_the_variance_of_real_values_is_no_part_of_the_fit():
    model = fitted("AE", datasets.blobs(200, 10), likelihood="normal", train={"max_epochs": 20})
    assert model.module.likelihood.log_sigma.item() == 0
    unit = model.module.likelihood.unit.item()
    error = (model.adata.X - model.get_reconstruction()) ** 2
    expected = error.sum(1) / (2 * unit**2) + 5 * np.log(2 * np.pi) + 10 * np.log(unit)
    np.testing.assert_allclose(
        model.get_reconstruction_error(return_mean=False)["reconstruction_loss"], expected, rtol=1e-4
    )
