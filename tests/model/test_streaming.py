"""Cells stream through a trained model in the order asked for, however they are cut into blocks."""

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from tests.model.helpers import build, fitted


def test_rows_come_in_the_order_asked_for(counts, tmp_path):
    model = fitted("VAE", counts)
    z = model.get_latent_representation()
    rows = [5, 3, 3, 119, 0]
    np.testing.assert_allclose(model.get_latent_representation(indices=rows), z[rows], rtol=1e-5, atol=1e-6)
    counts.X = csr_matrix(counts.X)
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_allclose(model.get_latent_representation(backed, rows), z[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 119])
def test_the_size_of_a_batch_changes_nothing(batch_size, counts):
    model = fitted("VAE", counts)
    z = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(batch_size=batch_size), z, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_not_trained_says_so(counts):
    with pytest.raises(RuntimeError, match="VAE is not trained yet"):
        build("VAE", counts).get_latent_representation()


def test_a_cell_without_finite_results_is_named(counts):
    model = fitted("GMVAE", counts, likelihood="normal")
    query = counts.copy()
    query.X = query.X.astype(np.float64)
    query.X[2, 5] = 1e37
    before = set(query.obs)
    for use in (model.get_elbo, model.annotate):
        with pytest.raises(ValueError, match=r"'cell 2' is not a finite number.* 1e\+37, in gene 'gene 5'"):
            use(query)
    assert set(query.obs) == before
