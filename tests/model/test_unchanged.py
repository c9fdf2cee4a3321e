"""Changed cells are noticed, whatever the change and wherever they are."""

import anndata as ad
import dask.array
import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csc_matrix, csr_matrix

import mixvi
from mixvi.model.unchanged import check_unchanged
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


@pytest.mark.parametrize("change", [lambda x: x * 10, lambda x: x * np.nan, lambda x: x[::-1]])
def test_size_factors_changed_in_place_are_noticed(counts, change):
    counts.obs["size"] = np.linspace(1, 2, counts.n_obs)
    model = fitted("VAE", counts, {"size_factor_key": "size"})
    model.get_elbo()
    counts.obs["size"] = change(counts.obs["size"].to_numpy())
    with pytest.raises(ValueError, match="The size factors of this VAE's AnnData changed"):
        model.get_reconstruction()


@pytest.mark.parametrize("key", ["condition", "age", "cluster"])
def test_registered_columns_changed_in_place_are_noticed(counts, key):
    counts.obs["age"] = np.linspace(0, 1, counts.n_obs)
    setup = {"batch_key": "condition", "continuous_covariate_keys": ["age"], "labels_key": "cluster"}
    model = build("GMVAE", counts, setup)
    assert len(model.adata_manager.seen.columns) == 3
    counts.obs[key] = counts.obs[key].to_numpy()[::-1].copy()
    with pytest.raises(ValueError, match=rf"The column .obs\['{key}'\] of this GMVAE's AnnData changed"):
        check_unchanged(model)


def test_values_changed_before_the_model_is_made_are_noticed(counts):
    mixvi.VAE.setup_anndata(counts)
    sc.pp.log1p(counts)
    with pytest.raises(ValueError, match="The values of this VAE's AnnData changed after setup_anndata"):
        mixvi.VAE(counts)


def test_a_matrix_that_was_exchanged_for_one_out_of_memory_is_noticed(counts, tmp_path):
    model = build("VAE", counts)
    ad.AnnData(counts.X * 7).write_h5ad(tmp_path / "cells.h5ad")
    counts.X = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r").X
    with pytest.raises(ValueError, match="The values of this VAE's AnnData changed"):
        check_unchanged(model)
    counts.X = dask.array.from_array(np.asarray(counts.X) / 7)
    with pytest.raises(ValueError, match="is a dask array. Load it"):
        check_unchanged(model)


def test_cells_in_another_order_are_not_those_of_the_training(counts, tmp_path):
    model = fitted("GMVAE", counts)
    model.save(tmp_path / "model")
    other = counts[np.random.default_rng(0).permutation(counts.n_obs)].copy()
    again = mixvi.GMVAE.load(tmp_path / "model", adata=other, accelerator="cpu")
    np.testing.assert_allclose(again.predict(soft=True), model.predict(other, soft=True), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="was loaded with other cells than it was trained on"):
        again.markers()
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = mixvi.GMVAE.load(tmp_path / "model", adata=ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    backed.train(1, accelerator="cpu", enable_progress_bar=False)  # a file cannot be compared, and counts as the same
