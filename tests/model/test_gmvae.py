"""GMVAE: components are clusters."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
from sklearn.metrics import adjusted_rand_score

import mixvi
from mixvi import datasets
from tests.model.helpers import QUICK, build, fitted


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
    assert table.shape == (4, model.n_clusters)
    assert model.n_clusters == 4 if n_clusters else model.n_clusters >= 4  # other blobs may be split
    assert table.max().sum() / len(cells) > 0.98
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


def test_clusters_are_named_by_size(model):
    sizes = pd.Series(model.predict()).value_counts().reindex(model.cluster_names)
    assert model.cluster_names == ["0", "1", "2"]
    assert sizes.is_monotonic_decreasing


def test_a_component_is_chosen_by_the_name_of_its_cluster(model):
    assert (model.sample(5, component=1, seed=0).X == model.sample(5, component="1", seed=0).X).all()
    with pytest.raises(ValueError, match="'7' is not a cluster; there are"):
        model.sample(5, component="7")


def test_an_open_number_of_clusters_is_found(blobs):
    model = fitted("GMVAE", blobs, train={"max_epochs": 120}, n_clusters=None)
    assert 3 <= model.n_clusters <= 64
    found = pd.crosstab(model.predict(), blobs.obs["cluster"])  # it may split a blob, and mixes none
    assert found.max(axis=1).sum() / 300 > 0.95
    assert model.predict(soft=True).shape == (300, model.n_clusters)


@pytest.mark.parametrize(("init", "right"), [("leiden", 0.8), ("vat", 0.95)])
def test_labelled_classes_keep_their_names(blobs, init, right):
    blobs.obs["known"] = blobs.obs["cluster"].astype(str).where(np.arange(300) % 5 == 0, "?")
    mixvi.GMVAE.setup_anndata(blobs, labels_key="known", unlabeled_category="?")
    model = mixvi.GMVAE(blobs, init=init)
    model.train(**(QUICK | {"max_epochs": 120}))
    assert set(model.cluster_names) == {"blob 0", "blob 1", "blob 2"}
    assert "label_train" in model.history
    for metric in ("accuracy", "f1_score", "classification_loss"):  # names of scvi-tools
        assert len(model.history[f"train_{metric}"]) == len(model.history[f"validation_{metric}"]) == 120
    assert model.history["validation_accuracy"].iloc[-1].item() > right
    unlabelled = blobs.obs["known"] == "?"
    assert (model.predict()[unlabelled] == blobs.obs["cluster"][unlabelled]).mean() > right
    assert (model.predict(blobs[:, :].copy()) == model.predict()).all()
    new = datasets.blobs(60, 30, n_clusters=3, n_conditions=2, kind="count", seed=0)
    assert model.predict(new).shape == (60,)  # without a column of labels


def test_known_classes_and_new_clusters_stand_side_by_side(blobs):
    blobs.obs["known"] = np.where((blobs.obs["cluster"] == "blob 0") & (np.arange(300) % 2 == 0), "0", "?")
    model = fitted("GMVAE", blobs, {"labels_key": "known", "unlabeled_category": "?"}, n_clusters=3)
    assert model.cluster_names == ["0", "new 0", "1"]


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


def test_a_class_without_a_training_cell_keeps_its_component(blobs):
    blobs.obs["known"] = ["rare" if i == 0 else "a" if i % 2 else "?" for i in range(300)]
    train = {"datasplitter_kwargs": {"external_indexing": [np.arange(1, 300), np.array([0]), np.array([])]}}
    model = fitted("GMVAE", blobs, {"labels_key": "known", "unlabeled_category": "?"}, train, n_clusters=None)
    assert model.cluster_names == ["a", "rare"]
    assert model.predict(soft=True).shape == (300, 2)


def test_new_cells_need_no_label_when_a_model_is_loaded_with_them(blobs, tmp_path):
    model = fitted("GMVAE", blobs, {"labels_key": "cluster"}, n_clusters=None)
    merged = model.predict(soft=True, n_clusters=2)  # classes that the tree joins have the names of both
    assert sorted(name for cluster in merged for name in cluster.split("+")) == sorted(model.cluster_names)
    assert {cluster.count("+") for cluster in merged} == {0, 1}
    model.save(tmp_path / "model")
    new = blobs[:50].copy()
    del new.obs["cluster"], new.obs["_scvi_labels"]
    again = mixvi.GMVAE.load(tmp_path / "model", adata=new, accelerator="cpu")
    np.testing.assert_array_equal(again.predict(), model.predict()[:50])
    assert (new.obs["_scvi_labels"] == 3).all()  # unlabelled
    again.annotate()
    assert "markers" not in new.uns["mixvi"]
    with pytest.raises(ValueError, match=r"other cells than it was trained on. markers\(\) needs those"):
        again.markers()
    with pytest.raises(ValueError, match="with other cells than it was trained on. Further training needs"):
        again.train(1, enable_progress_bar=False, accelerator="cpu")
    same = mixvi.GMVAE.load(tmp_path / "model", adata=blobs.copy(), accelerator="cpu")
    pd.testing.assert_frame_equal(same.markers(), model.markers())
    same.train(1, enable_progress_bar=False, accelerator="cpu")


def test_a_number_asked_for_before_is_a_cut_of_the_same_fit(blobs):
    train = {"max_epochs": 60}
    free = fitted("GMVAE", blobs, train=train, n_clusters=None)
    for k in (2, 5):
        asked = fitted("GMVAE", blobs, train=train, n_clusters=k)
        for (name, then), now in zip(free.module.state_dict().items(), asked.module.state_dict().values(), strict=True):
            if name != "prior.temperature":  # which calibrates the clusters where the model cuts
                np.testing.assert_array_equal(then, now, err_msg=name)
        for model in (asked, free):
            model.module.prior.temperature.fill_(1.0)
        np.testing.assert_array_equal(asked.predict(), free.predict(n_clusters=k))


@pytest.mark.parametrize("seed", range(3))
def test_one_population_is_one_cluster(seed):
    rng = np.random.default_rng(seed)
    mean = rng.exponential(3.0, 40) * rng.uniform(0.5, 2, (400, 1))
    cells = ad.AnnData(rng.poisson(mean).astype(np.float32))
    model = fitted("GMVAE", cells, train={"max_epochs": 40}, seed=seed, n_clusters=None)
    assert model.n_clusters == 1
    assert (model.predict() == "0").all()
    with pytest.raises(ValueError, match="There is one cluster only, so it has no markers"):
        model.markers()


def test_a_saved_model_knows_all_of_it(model, blobs, tmp_path):
    model.save(tmp_path / "model")
    again = mixvi.GMVAE.load(tmp_path / "model", adata=blobs, accelerator="cpu")
    assert str(again.tree) == str(model.tree)
    pd.testing.assert_frame_equal(again.tree.table, model.tree.table)
    pd.testing.assert_frame_equal(again.predict(soft=True), model.predict(soft=True), rtol=1e-5)
    pd.testing.assert_frame_equal(again.predict(soft=True, n_clusters=5), model.predict(soft=True, n_clusters=5))
    pd.testing.assert_frame_equal(again.markers(), model.markers())
    strong = build("GMVAE", blobs, guidance=7.0, min_worth=3.0, init="cluster")
    strong.save(tmp_path / "strong")
    again = mixvi.GMVAE.load(tmp_path / "strong", adata=blobs, accelerator="cpu")
    assert (again._guidance, again._min_worth) == (7.0, 3.0)
    np.testing.assert_array_equal(again._init, pd.factorize(blobs.obs["cluster"])[0])


def test_splits_must_be_worth_what_is_asked(blobs):
    train = {"max_epochs": 20}
    assert fitted("GMVAE", blobs, train=train, n_clusters=None, min_worth=1e6).n_clusters == 1
    assert fitted("GMVAE", blobs, train=train, n_clusters=None, min_worth=0.0).n_clusters >= 3


@pytest.mark.parametrize("setup", [{}, {"batch_key": "condition"}])
def test_classes_of_the_toy_are_found_with_and_without_conditions(setup):
    n_conditions = 1 + len(setup)
    adata = datasets.blobs(n_conditions=n_conditions, separation=10)
    mixvi.GMVAE.setup_anndata(adata, **setup)
    model = mixvi.GMVAE(adata, n_clusters=5)
    model.train(150, enable_progress_bar=False, accelerator="cpu")
    assert adjusted_rand_score(adata.obs["cluster"], model.predict()) == 1.0


def test_a_type_of_one_batch_alone_is_not_smeared_away():
    """Two batches, one of them without blob 2: its cells stay a cluster of their own."""
    scvi.settings.seed = 0
    adata = datasets.blobs(900, 40, n_clusters=3, n_conditions=2, kind="count", separation=10)
    adata = adata[~((adata.obs["cluster"] == "blob 2") & (adata.obs["condition"] == "condition 1"))].copy()
    mixvi.GMVAE.setup_anndata(adata, batch_key="condition")
    model = mixvi.GMVAE(adata, n_clusters=3)
    model.train(150, enable_progress_bar=False, accelerator="cpu")
    assert adjusted_rand_score(adata.obs["cluster"], model.predict()) > 0.95
