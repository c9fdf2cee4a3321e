"""GMVAE: components are clusters."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

import mixvi
from mixvi import datasets
from mixvi.consensus import Placed
from tests.model.helpers import QUICK, fitted


@pytest.mark.parametrize(("kind", "seed"), [*(("real", seed) for seed in range(5)), ("count", 0)])
def test_blobs_are_recovered_at_default_settings(kind, seed):
    scvi.settings.seed = seed
    adata = datasets.blobs(kind=kind, seed=seed)
    mixvi.GMVAE.setup_anndata(adata)
    model = mixvi.GMVAE(adata, n_clusters=5)
    model.train(enable_progress_bar=False, accelerator="cpu")
    assert adjusted_rand_score(adata.obs["cluster"], model.predict()) > 0.95
    for name in model.cluster_names:  # cells drawn from a component belong to it; chance is 0.2
        assert (model.predict(model.sample(200, component=name, seed=0)) == name).mean() > 0.75


@pytest.mark.parametrize("n_clusters", [4, None])
def test_a_small_population_survives(n_clusters):
    """37 of about 2,600 cells, in counts that overlap a little."""
    cells = datasets.blobs(3420, 30, n_clusters=4, kind="count")
    rare = np.flatnonzero(cells.obs["cluster"] == "blob 2")
    cells = cells[np.delete(np.arange(cells.n_obs), rare[37:])].copy()
    model = fitted("GMVAE", cells, train={"max_epochs": 20}, n_clusters=n_clusters, n_hidden=128, n_latent=10)
    table = pd.crosstab(cells.obs["cluster"], model.predict())
    assert table.shape == (4, 4)
    own = table.loc["blob 2"]
    assert own.max() >= 33
    assert table[own.idxmax()].sum() <= 41


@pytest.mark.data
@pytest.mark.parametrize("n_clusters", [8, None])
def test_dendritic_cells_survive(n_clusters):
    """37 of the 2,638 labelled cells of pbmc3k."""
    cells = datasets.pbmc3k()
    cells = cells[cells.obs["cell_type"] != "unassigned"].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3", subset=True)
    mixvi.GMVAE.setup_anndata(cells)
    model = mixvi.GMVAE(cells, n_clusters)
    model.train(60, enable_progress_bar=False, accelerator="cpu")
    table = pd.crosstab(cells.obs["cell_type"], model.predict())
    own = table.columns[table.idxmax() == "Dendritic cells"]
    assert table.loc["Dendritic cells", own].sum() > 37 / 2


@pytest.fixture
def blobs():
    return datasets.blobs(300, 30, n_clusters=3, n_conditions=2, kind="count")


@pytest.fixture
def model(blobs):
    return fitted("GMVAE", blobs, train={"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}})


def test_annotate_writes_clusters_and_how_sure_they_are(model, blobs):
    model.annotate()
    table = blobs.obsm["mixvi_probabilities"]
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    assert list(table.index) == list(blobs.obs_names)
    assert isinstance(blobs.obs["mixvi"].dtype, pd.CategoricalDtype)
    np.testing.assert_array_equal(blobs.obs["mixvi"], table.columns[table.to_numpy().argmax(1)])
    np.testing.assert_allclose(blobs.obs["mixvi_confidence"], table.max(axis=1))
    p = table.to_numpy(dtype=float)
    entropy = -(p * np.log(np.clip(p, 1e-300, 1))).sum(1)
    np.testing.assert_allclose(blobs.obs["mixvi_entropy"], entropy, atol=1e-5)
    np.testing.assert_array_equal(model.predict(), blobs.obs["mixvi"])
    sc.pp.neighbors(blobs, use_rep="X_mixvi")
    sc.tl.umap(blobs, maxiter=5)
    sc.pl.umap(blobs, color="mixvi", show=False)


def test_clusters_are_named_by_size(model):
    sizes = pd.Series(model.predict()).value_counts().reindex(model.cluster_names)
    assert model.cluster_names == ["0", "1", "2"]
    assert sizes.is_monotonic_decreasing


def test_rows_of_predict_and_new_cells(model, blobs):
    table = model.predict(soft=True)
    pd.testing.assert_frame_equal(model.predict(indices=[5, 1], soft=True), table.iloc[[5, 1]], rtol=1e-4, atol=1e-6)
    mask = np.arange(300) < 7
    assert model.predict(indices=mask, soft=True).shape == (7, 3)
    pd.testing.assert_frame_equal(model.predict(blobs[10:20], soft=True), table.iloc[10:20], rtol=1e-4, atol=1e-6)
    new = datasets.blobs(100, 30, n_clusters=3, n_conditions=2, kind="count", seed=1)
    assert set(model.predict(new)) <= {"0", "1", "2"}


def test_a_component_is_chosen_by_the_name_of_its_cluster(model):
    assert (model.sample(5, component=1, seed=0).X == model.sample(5, component="1", seed=0).X).all()
    with pytest.raises(ValueError, match="'7' is not a cluster; there are"):
        model.sample(5, component="7")


def test_clusters_that_are_there_are_stable():
    train = {"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}}
    model = fitted("GMVAE", datasets.blobs(300, 30, n_clusters=3, kind="count"), train=train)
    found = model.cluster_stability(2, accelerator="cpu", plan_kwargs={"lr": 5e-3})
    assert list(found.index) == model.cluster_names
    assert found["cells"].sum() == 300
    assert found["mean"].min() > 0.9
    for wrong in (0, "2"):
        with pytest.raises(ValueError, match=f"n_seeds={wrong!r}; it must be a whole number, 1 or more"):
            model.cluster_stability(wrong)
    forced = fitted("GMVAE", model.adata, train={"max_epochs": 20}, n_clusters=12)
    assert forced.cluster_stability(2, accelerator="cpu")["mean"].min() < 0.5  # blobs in pieces


def test_stability_refuses_another_registration(model, blobs):
    mixvi.GMVAE.setup_anndata(blobs, batch_key="condition")
    with pytest.raises(ValueError, match="registered anew"):
        model.cluster_stability(1)


def test_the_merge_tree_has_the_clusters_for_leaves(model):
    tree = model.merge_tree()
    assert tree.names == model.cluster_names
    assert tree.linkage.shape == (2, 4)
    ax = mixvi.pl.merge_tree(tree, show=False)
    assert sorted(label.get_text() for label in ax.get_yticklabels()) == ["0", "1", "2"]


def test_an_open_number_of_clusters_is_found(blobs):
    model = fitted("GMVAE", blobs, train={"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}}, n_clusters=None)
    assert 3 <= model.n_clusters <= 64
    found = pd.crosstab(model.predict(), blobs.obs["cluster"])  # it may split a blob, and mixes none
    assert found.max(axis=1).sum() / 300 > 0.95
    assert model.predict(soft=True).shape == (300, model.n_clusters)


def test_a_wrong_number_of_clusters_is_an_error(blobs):
    mixvi.GMVAE.setup_anndata(blobs, labels_key="cluster")
    for wrong in (0, 2, 301):
        with pytest.raises(ValueError, match=f"n_clusters={wrong}.*between 3 .* and 300"):
            mixvi.GMVAE(blobs, n_clusters=wrong)


def test_labelled_classes_keep_their_names(blobs):
    blobs.obs["known"] = blobs.obs["cluster"].astype(str).where(np.arange(300) % 5 == 0, "?")
    mixvi.GMVAE.setup_anndata(blobs, labels_key="known", unlabeled_category="?")
    model = mixvi.GMVAE(blobs)
    model.train(**(QUICK | {"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}}))
    assert set(model.cluster_names) == {"blob 0", "blob 1", "blob 2"}
    assert "label_train" in model.history
    unlabelled = blobs.obs["known"] == "?"
    assert (model.predict()[unlabelled] == blobs.obs["cluster"][unlabelled]).mean() > 0.95
    assert (model.predict(blobs[:, :].copy()) == model.predict()).all()
    new = datasets.blobs(60, 30, n_clusters=3, n_conditions=2, kind="count", seed=0)
    assert model.predict(new).shape == (60,)  # without a column of labels


def test_known_classes_and_new_clusters_stand_side_by_side(blobs):
    blobs.obs["known"] = np.where((blobs.obs["cluster"] == "blob 0") & (np.arange(300) % 2 == 0), "0", "?")
    model = fitted("GMVAE", blobs, {"labels_key": "known", "unlabeled_category": "?"}, n_clusters=3)
    assert model.cluster_names == ["0", "new 0", "1"]


def test_classes_that_hardly_any_cell_is_in_are_said(blobs, monkeypatch, caplog):
    name = np.where(blobs.obs["cluster"] == "blob 0", "a", np.where(np.arange(300) // 20 % 2, "b", "c"))
    blobs.obs["known"] = np.where(np.arange(300) % 20, "?", name)
    train = {"max_epochs": 4, "plan_kwargs": {"guidance": 0.0}}
    asked = []
    monkeypatch.setattr("mixvi.train._parts.shrunken", lambda *said: asked.append(said) or {1: 2})
    caplog.set_level("INFO", "mixvi")
    model = fitted("GMVAE", blobs, {"labels_key": "known", "unlabeled_category": "?"}, train, n_clusters=None)
    known = blobs.obs["known"] != "?"
    moved = (model.predict() != blobs.obs["known"])[known].sum()
    assert moved
    assert f"{moved} of 15 labelled cells are likelier in another cluster than their class." in caplog.text
    assert "Hardly any cells, for their labels, are in the classes {'b': 2}" in caplog.text
    ((part, labels, n_classes),) = asked
    assert (len(part), n_classes) == (300, len(set(name)))
    np.testing.assert_array_equal(labels >= 0, np.arange(300) % 20 == 0)


@pytest.mark.parametrize("hierarchical", [False, True])
def test_conditions_are_left_out_of_the_clusters(hierarchical):
    blobs = datasets.blobs(n_clusters=4, n_conditions=2, kind="count")
    mixvi.GMVAE.setup_anndata(blobs, batch_key="condition")
    model = mixvi.GMVAE(blobs, n_clusters=4, hierarchical=hierarchical)
    model.train(enable_progress_bar=False, accelerator="cpu")
    terms = {"kl_z_train", "kl_y_train"} | ({"kl_w_train"} if hierarchical else set())
    assert terms <= set(model.history)
    assert adjusted_rand_score(blobs.obs["cluster"], model.predict()) > 0.95


def test_labels_of_any_kind(blobs):
    for values, no_label, names in (
        (np.arange(300) % 3, None, ["0", "1", "2"]),
        (np.where(np.arange(300) % 3, "", "b/c"), "", ["b/c"]),
        (pd.Categorical(["a"] * 300, categories=["?", "a", "z"]), "?", ["a"]),  # neither "?" nor "z" occurs
    ):
        blobs.obs["known"] = values
        setup = {"labels_key": "known", "unlabeled_category": no_label}
        assert fitted("GMVAE", blobs, setup, n_clusters=None).cluster_names == names


@pytest.mark.parametrize("n_clusters", [4, None])
def test_clusters_without_a_cell_are_said_and_dropped_if_their_number_was_open(blobs, n_clusters, monkeypatch, caplog):
    def place(latent, *_):  # three of the parts are a few cells among those of the fourth
        part = np.minimum(np.arange(len(latent)) % 50, 3)
        return Placed(part, csr_matrix((len(latent),) * 2), [])

    monkeypatch.setattr("mixvi.train._parts.place", place)
    plan = {"plan_kwargs": {"guidance": 0.0, "lr": 1e-9}}
    model = fitted("GMVAE", blobs, train={"max_epochs": 2} | plan, n_clusters=n_clusters)
    n_used = len(set(model.predict()))
    assert n_used < 4
    assert model.n_clusters == (n_clusters or n_used)
    assert model.cluster_names == [str(k) for k in range(model.n_clusters)]
    said = "." if n_clusters else ", which were dropped."
    assert f"Clusters without a cell: {4 - n_used}{said}" in caplog.text


def test_a_class_without_a_training_cell_keeps_its_component(blobs):
    blobs.obs["known"] = ["rare" if i == 0 else "a" if i % 2 else "?" for i in range(300)]
    train = {"datasplitter_kwargs": {"external_indexing": [np.arange(1, 300), np.array([0]), np.array([])]}}
    model = fitted("GMVAE", blobs, {"labels_key": "known", "unlabeled_category": "?"}, train, n_clusters=None)
    assert model.cluster_names == ["a", "rare"]
    assert model.predict(soft=True).shape == (300, 2)


def test_names_with_slashes_survive_a_file(blobs, tmp_path):
    blobs.obs["known"] = blobs.obs["cluster"].astype(str).str.replace(" ", "/")
    model = fitted("GMVAE", blobs, {"labels_key": "known"}, n_clusters=None)
    model.annotate()
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    assert set(blobs.obs["mixvi"].cat.categories) == {"blob/0", "blob/1", "blob/2"}
