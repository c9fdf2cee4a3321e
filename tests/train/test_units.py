"""A fit to real values does not depend on their units."""

import numpy as np
import pytest
import scvi

from mixvi import datasets
from tests.model.helpers import build

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_the_same_fit_in_other_units(name):
    found = {}
    for factor in (1.0, 0.01, 100.0, 1e4):
        cells = datasets.blobs(150, 12, n_clusters=3, kind="real", n_conditions=2, seed=0)
        cells.X = cells.X.astype(np.float64) * factor
        scvi.settings.seed = 0
        model = build(name, cells, likelihood="normal")
        model.train(30, **QUIET)
        found[factor] = model.get_reconstruction() / factor, model.get_elbo() + 12 * np.log(factor)
    x, bound = found.pop(1.0)
    for other, (reconstruction, elbo) in found.items():
        np.testing.assert_allclose(reconstruction, x, atol=0.02 * x.std(), err_msg=str(other))
        assert elbo == pytest.approx(bound, abs=0.3), other  # the density of x in other units


def test_values_that_do_not_vary_can_be_trained_on():
    cells = datasets.blobs(60, 5, kind="real", seed=0)
    cells.X = np.full_like(cells.X, 3.5)
    model = build("VAE", cells, likelihood="normal")
    model.train(3, **QUIET)
    np.testing.assert_allclose(model.get_reconstruction(), 3.5, atol=1.0)
