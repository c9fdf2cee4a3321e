"""A model knows the values that it was made with: if they are changed in place, it says so."""

import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csc_matrix, csr_matrix

import mixvi
from mixvi.data import fingerprint, same_values
from tests.model.helpers import QUICK, build, fitted


def reorder(cells):
    order = np.arange(cells.n_vars)[::-1]
    cells.X = cells.X[:, order].copy()
    cells.var_names = cells.var_names[order]


def add_nan(cells):
    cells.X = np.asarray(cells.X, dtype=np.float32)
    cells.X[3, 2] = np.nan


def add_one_count(cells):
    cells.X = cells.X.copy()
    cells.X[3, 2] += 1


def swap_cells(cells):
    cells.X = cells.X[::-1].copy()


CHANGES = {
    "normalised": sc.pp.normalize_total,
    "logarithm": sc.pp.log1p,
    "scaled": sc.pp.scale,
    "not a number": add_nan,
    "one count": add_one_count,
    "cells in another order": swap_cells,
    "genes in another order": reorder,
    "genes dropped": lambda cells: sc.pp.filter_genes(cells, min_counts=np.median(cells.X.sum(0))),
    "cells dropped": lambda cells: sc.pp.filter_cells(cells, min_counts=np.median(cells.X.sum(1))),
}
USES = {
    "latent": lambda model: model.get_latent_representation(),
    "elbo": lambda model: model.get_elbo(),
    "annotate": lambda model: model.annotate(),
    "train": lambda model: model.train(1, accelerator="cpu", enable_progress_bar=False),
    "sample": lambda model: model.sample(5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_values_changed_in_place_are_noticed_at_each_use(counts, change):
    model = fitted("VAE", counts)
    CHANGES[change](counts)
    for use in USES.values():
        with pytest.raises(ValueError, match="VAE's AnnData changed after setup_anndata. Undo that, or call"):
            use(model)


@pytest.mark.parametrize("change", ["genes dropped", "genes in another order"])
def test_genes_changed_before_the_model_is_made_are_noticed(counts, change):
    mixvi.VAE.setup_anndata(counts)
    CHANGES[change](counts)
    with pytest.raises(ValueError, match="The genes, or their order, of this VAE's AnnData changed"):
        mixvi.VAE(counts)


def test_what_does_not_change_the_values_is_free(counts):
    counts.layers["counts"] = counts.X.copy()
    model = build("VAE", counts, {"layer": "counts"})
    sc.pp.normalize_total(counts)
    model.train(**QUICK)
    z = model.get_latent_representation()
    for change in (csr_matrix, csc_matrix, lambda x: x.toarray(), lambda x: x.astype(np.float64)):
        counts.layers["counts"] = change(counts.layers["counts"])
        np.testing.assert_allclose(model.get_latent_representation(), z, rtol=1e-4, atol=1e-5)
    counts.obs["new"] = 1
    counts.obs_names = [f"cell {i}" for i in range(counts.n_obs)]
    np.testing.assert_allclose(model.get_latent_representation(), z, rtol=1e-4, atol=1e-5)


def test_a_fingerprint_is_of_values_not_of_storage():
    x = np.random.default_rng(0).poisson(1.0, (50, 20)).astype(np.float32)
    same = [csr_matrix(x), csc_matrix(x), x.astype(np.int64), x.astype(np.float64), np.asfortranarray(x)]
    assert all(same_values(fingerprint(other), fingerprint(x)) for other in same)
    assert not same_values(fingerprint(x[:, ::-1]), fingerprint(x))
    assert not same_values(fingerprint(x[:40]), fingerprint(x))
    assert fingerprint(np.zeros((0, 3))).shape == (0, 2)
    assert fingerprint("a matrix in a file") is None
