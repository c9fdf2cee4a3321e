"""A model knows the values that it was made with: if they are changed in place, it says so."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csc_matrix, csr_matrix

import mixvi
from mixvi import datasets
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


@pytest.mark.parametrize("change", [lambda x: x * 10, lambda x: x * np.nan, lambda x: x[::-1]])
def test_size_factors_changed_in_place_are_noticed(counts, change):
    counts.obs["size"] = np.linspace(1, 2, counts.n_obs)
    model = fitted("VAE", counts, {"size_factor_key": "size"})
    model.get_elbo()
    counts.obs["size"] = change(counts.obs["size"].to_numpy())
    with pytest.raises(ValueError, match="The size factors of this VAE's AnnData changed"):
        model.get_reconstruction()


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


def test_a_model_loads_with_fewer_cells_and_columns(counts, tmp_path):
    model = fitted("GMVAE", counts, n_clusters=5)
    model.save(tmp_path / "five")
    few = mixvi.GMVAE.load(tmp_path / "five", adata=counts[:3].copy(), accelerator="cpu")
    np.testing.assert_array_equal(few.predict(), model.predict()[:3])
    fitted("GMVAE", counts, init="cluster").save(tmp_path / "column")
    new = counts[:20].copy()
    del new.obs["cluster"]
    assert len(mixvi.GMVAE.load(tmp_path / "column", adata=new, accelerator="cpu").predict()) == 20


def test_a_linear_model_without_its_cells_annotates_others(tmp_path):
    cells = datasets.blobs(100, 8, kind="real", seed=0)
    model = build("VAE", cells, linear=True)
    model.train(enable_progress_bar=False)
    model.save(tmp_path / "model")
    for adata in (False, cells[:2].copy()):
        new = cells[:10].copy()
        mixvi.VAE.load(tmp_path / "model", adata=adata, accelerator="cpu").annotate(new)
        assert not list(new.varm)
    model.annotate()
    assert cells.varm["PCs_mixvi"].shape[0] == 8


def test_cells_of_an_earlier_model_beside_a_new_one_are_said(counts, tmp_path, warned):
    fitted("VAE", counts[:60].copy()).save(tmp_path / "model", save_anndata=True)
    fitted("VAE", counts[60:].copy()).save(tmp_path / "model", overwrite=True)
    assert "not those that the model was trained on" not in warned()
    mixvi.VAE.load(tmp_path / "model", accelerator="cpu")
    assert "not those that the model was trained on; an earlier model may have saved them" in warned()


@pytest.mark.parametrize("values", [pd.cut(np.arange(120), 3), pd.date_range("2026-01-01", periods=120)])
def test_values_that_files_cannot_hold_are_refused(counts, values):
    counts.obs["b"] = values
    with pytest.raises(ValueError, match=r"obs\['b'\] has values such as .*make them text: .*astype\(str\)"):
        mixvi.CVAE.setup_anndata(counts, batch_key="b")


def test_annotate_replaces_only_what_it_wrote(counts):
    model = fitted("VAE", counts)
    model.annotate()
    model.annotate()
    counts.obs["mixvi"] = counts.obs["mixvi_confidence"] = 1
    with pytest.raises(ValueError, match="already has .*mixvi.* which is not from mixvi; nothing was written"):
        model.annotate()
    assert (counts.obs["mixvi_confidence"] == 1).all()
    for other in (5, np.zeros((2, 2)), {"a": 1}):
        counts.uns["k"] = other
        with pytest.raises(ValueError, match="already has 'k', which is not from mixvi"):
            model.annotate(key_added="k")


def test_one_cluster_cannot_be_cut(counts):
    model = fitted("GMVAE", counts, init=None)
    with pytest.raises(ValueError, match="n_clusters=7, but this GMVAE has one cluster and no tree"):
        model.predict(n_clusters=7)
    assert (model.predict(n_clusters=1) == "0").all()
