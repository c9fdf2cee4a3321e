"""A minified copy has the posterior of each cell, and none of the values unless they are kept."""

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix, issparse

from mixvi.data import (
    MEAN,
    TOTAL,
    VARIANCE,
    copy_posterior,
    has_values,
    minified_copy,
    minified_fields,
    minified_type,
)


def minified(adata, with_values=False):
    n = adata.n_obs
    return minified_copy(adata, np.full((n, 2), 3.0), np.full((n, 2), 0.5), np.arange(n), with_values)


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "backed", "layer"])
@pytest.mark.parametrize("with_values", [False, True])
def test_every_kind_of_matrix(form, with_values, rng, tmp_path):
    x = rng.poisson(1.0, (6, 4)).astype(np.float32)
    adata = AnnData({"csr": csr_matrix, "csc": csc_matrix}.get(form, np.asarray)(x))
    adata.uns["_scvi_uuid"] = "of another AnnData"
    if form == "layer":
        adata = AnnData(None, layers={"counts": x}, shape=x.shape)
    if form == "backed":
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    small = minified(adata, with_values)
    values = small.layers["counts"] if form == "layer" else small.X
    values = values.toarray() if issparse(values) else values
    np.testing.assert_array_equal(values, x if with_values else np.zeros_like(x))
    assert has_values(small) == with_values
    assert has_values(adata)
    assert minified_type(adata) is None
    assert "_scvi_uuid" not in small.uns
    assert (small.X is None) == (form == "layer")
    np.testing.assert_array_equal(small.obsm[MEAN], 3.0)
    np.testing.assert_array_equal(small.obs[TOTAL], np.arange(6))
    assert len(minified_fields(small)) == 4
    assert not minified_fields(adata)


def test_the_posterior_goes_with_the_cells(rng):
    adata = AnnData(rng.poisson(1.0, (6, 4)).astype(np.float32))
    other = adata[[4, 1]].copy()
    copy_posterior(adata, other)
    assert minified_type(other) is None
    assert not len(other.obsm)
    small = minified(adata)
    small.obsm[VARIANCE][4] = 9.0
    copy_posterior(small[[4, 1]], other)
    assert minified_type(other) == minified_type(small) == "latent_posterior_parameters"
    np.testing.assert_array_equal(other.obsm[VARIANCE], [[9.0, 9.0], [0.5, 0.5]])
    np.testing.assert_array_equal(other.obs[TOTAL], [4, 1])
