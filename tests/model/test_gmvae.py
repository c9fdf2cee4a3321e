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
from mixvi.model._predict import component_probabilities
from mixvi.model.streaming import collect
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


@pytest.fixture
def blobs():
    return datasets.blobs(300, 30, n_clusters=3, n_conditions=2, kind="count")


@pytest.fixture
def model(blobs):
    return fitted("GMVAE", blobs, train={"max_epochs": 120})


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
    train = {"max_epochs": 120}
    model = fitted("GMVAE", datasets.blobs(300, 30, n_clusters=3, kind="count"), train=train)
    found = model.cluster_stability(2, accelerator="cpu")
    assert list(found.index) == model.cluster_names
    assert found["cells"].sum() == 300
    assert found["mean"].min() > 0.9
    for wrong in (0, "2"):
        with pytest.raises(ValueError, match=f"n_seeds={wrong!r}; it must be a whole number of at least 1"):
            model.cluster_stability(wrong)
    forced = fitted("GMVAE", model.adata, train={"max_epochs": 20}, n_clusters=12)
    assert forced.cluster_stability(2, accelerator="cpu")["mean"].min() < 0.5  # blobs in pieces


def test_stability_refuses_another_registration(model, blobs):
    mixvi.GMVAE.setup_anndata(blobs, batch_key="condition")
    with pytest.raises(ValueError, match="registered anew"):
        model.cluster_stability(1)


def test_an_open_number_of_clusters_is_found(blobs):
    model = fitted("GMVAE", blobs, train={"max_epochs": 120}, n_clusters=None)
    assert 3 <= model.n_clusters <= 64
    found = pd.crosstab(model.predict(), blobs.obs["cluster"])  # it may split a blob, and mixes none
    assert found.max(axis=1).sum() / 300 > 0.95
    assert model.predict(soft=True).shape == (300, model.n_clusters)


def test_a_wrong_number_of_clusters_is_an_error(blobs):
    mixvi.GMVAE.setup_anndata(blobs, labels_key="cluster")
    for wrong in (0, 2, 301):
        with pytest.raises(ValueError, match=f"n_clusters={wrong}.*between 3 .* and 300"):
            mixvi.GMVAE(blobs, n_clusters=wrong)


@pytest.mark.parametrize(("init", "right"), [("leiden", 0.8), ("vat", 0.95)])
def test_labelled_classes_keep_their_names(blobs, init, right):
    blobs.obs["known"] = blobs.obs["cluster"].astype(str).where(np.arange(300) % 5 == 0, "?")
    mixvi.GMVAE.setup_anndata(blobs, labels_key="known", unlabeled_category="?")
    model = mixvi.GMVAE(blobs, init=init)
    model.train(**(QUICK | {"max_epochs": 120}))
    assert set(model.cluster_names) == {"blob 0", "blob 1", "blob 2"}
    assert "label_train" in model.history
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


@pytest.mark.parametrize(
    "names",
    ["T/NK B C", "CD4/CD8 CD4|CD8 C", "_index B C", ". .. C", ["", "B", " "], ["new 0", "0", "1"], ["a\n", "b", "ä"]],
)
def test_names_survive_files(blobs, tmp_path, names):
    names = names.split() if isinstance(names, str) else names
    blobs.obs["known"] = np.array(names)[blobs.obs["cluster"].cat.codes.to_numpy()]
    model = fitted("GMVAE", blobs, {"labels_key": "known"}, n_clusters=None)
    model.annotate()
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    blobs.write_zarr(tmp_path / "cells.zarr")
    for cells in (ad.read_h5ad(tmp_path / "cells.h5ad"), ad.read_zarr(tmp_path / "cells.zarr")):
        assert set(cells.obs["mixvi"].cat.categories) == set(names)
        columns = cells.obsm["mixvi_probabilities"].columns
        assert len(set(columns)) == 3
        assert set(names) - set(columns) == {name for name in names if "/" in name or name in ("", ".", "..", "_index")}


def test_new_cells_need_no_label_when_a_model_is_loaded_with_them(blobs, tmp_path):
    model = fitted("GMVAE", blobs, {"labels_key": "cluster"}, n_clusters=None)
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


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, pd.Index])
def test_lists_of_columns_of_any_kind_survive_files(blobs, tmp_path, kind):
    blobs.obs["a"], blobs.obs["b"] = (np.array(["x", "y"])[np.arange(300) % k % 2] for k in (2, 3))
    model = fitted("GMVAE", blobs, {"categorical_covariate_keys": kind(["a", "b"])})
    assert list(model.conditions) == ["a", "b"]
    model.annotate()
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    blobs.write_zarr(tmp_path / "cells.zarr")
    model.save(tmp_path / "model")


@pytest.mark.parametrize("key", ["a/b", "", ".", 0, None])
def test_a_key_that_files_cannot_hold_is_refused(model, key):
    before = model.adata.copy()
    with pytest.raises(ValueError, match="key_added=.* cannot be a name in a file"):
        model.annotate(key_added=key)
    assert list(model.adata.obsm) == list(before.obsm)


def test_a_cluster_is_as_probable_as_all_its_components(model, recwarn, warned):
    log_r = collect(model, lambda cells: model.module.prior.log_responsibilities(model.module.encode(cells), cells))
    p = component_probabilities(model, log_r)
    leaves = model.tree.clusters.tree.leaves()
    for n_clusters in (1, 2, 5, model.tree.clusters.tree.n_leaves):
        noise = (model.tree.table["kind"].head(n_clusters - 1) == "noise").sum()
        recwarn.clear()
        table = model.predict(soft=True, n_clusters=n_clusters)
        assert (f"{noise} of the {n_clusters - 1} splits" in warned()) == (noise > 0)
        assert table.shape == (300, n_clusters)
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
        sums = np.stack([p[:, sorted(leaves[node])].sum(1) for node in model.tree.clusters.tree.nodes(n_clusters)], 1)
        columns = table.to_numpy().T.tolist()
        assert sorted(columns) == sorted(sums.T.tolist())  # to the last bit
        labels = table.columns.to_numpy()[table.to_numpy().argmax(1)]
        np.testing.assert_array_equal(model.predict(n_clusters=n_clusters), labels)


def test_cuts_are_nested(model):
    groups = model._clusters().groups
    n_leaves = model.tree.clusters.tree.n_leaves
    for n in range(2, n_leaves + 1):
        coarse, fine = map(set, (map(frozenset, groups(n - 1)), map(frozenset, groups(n))))
        assert len(coarse - fine) == 1  # one cluster was split in two
        ((parent,), parts) = coarse - fine, fine - coarse
        assert frozenset.union(*parts) == parent
    for wrong in (n_leaves + 1, -1):
        with pytest.raises(
            ValueError,
            match=f"n_clusters={wrong}; (this tree can be cut into 1 to {n_leaves}|it must be a whole number)",
        ):
            model.predict(n_clusters=wrong)


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
    with pytest.raises(ValueError, match="There is one cluster, and so nothing to compare"):
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
    assert (again._guidance, again._min_worth, again._init is not None) == (7.0, 3.0, True)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"init": "leidn"}, "init='leidn' is not known; .*did you mean 'leiden'"),
    ({"init": "clustr"}, "did you mean 'cluster'"),
    ({"init": np.zeros(7)}, "init gives parts to 7 cells; it must give one to each of 300"),
    ({"init": [None] * 300}, "init gives parts to 0 cells"),
    ({"init": "vat"}, "init='vat' learns from labels, and there are none"),
    ({"init": "n2d", "n_clusters": None}, "init='n2d' cannot infer the number of clusters"),
    ({"init": "imsat", "n_clusters": None}, "init='imsat' cannot infer the number of clusters"),
    ({"guidance": -1.0}, "guidance=-1.0; it must be a finite number of at least 0"),
    ({"guidance": None}, "guidance=None; it must"), ({"guidance": "5"}, "guidance='5'; it must"),
    ({"guidance": np.nan}, "guidance=nan; it must"), ({"min_worth": np.inf}, "min_worth=inf; it must"),
    ({"min_worth": -0.1}, "min_worth=-0.1; it must"),
    ({"n_clusters": 0}, "n_clusters=0; it must be a whole number between 1 and 300"),
    ({"n_clusters": 2.5}, "n_clusters=2.5; it must"), ({"n_clusters": 301}, "n_clusters=301; it must"),
])  # fmt: skip
def test_settings_that_cannot_be_are_errors(wrong, said, blobs):
    with pytest.raises(ValueError, match=said):
        build("GMVAE", blobs, **wrong)


def test_labels_do_not_go_with_other_starts(blobs):
    for init in ("n2d", "imsat", "cluster"):
        with pytest.raises(ValueError, match="makes no use of labels; with labels_key it is 'leiden' or 'vat'"):
            build("GMVAE", blobs, {"labels_key": "cluster"}, init=init)


def test_splits_must_be_worth_what_is_asked(blobs):
    train = {"max_epochs": 20}
    assert fitted("GMVAE", blobs, train=train, n_clusters=None, min_worth=1e6).n_clusters == 1
    assert fitted("GMVAE", blobs, train=train, n_clusters=None, min_worth=0.0).n_clusters >= 3


def test_subclusters_look_inside_a_cluster(model, blobs):
    parts = model.subclusters("0", 3)
    assert (parts.index == blobs.obs_names[model.predict() == "0"]).all()
    assert parts.nunique() <= 3
    assert all(name.startswith("0.") for name in parts.unique())
    two = model.subclusters("0", 2)
    assert set(two) <= {"0.0", "0.1"}
    assert (pd.crosstab(two, parts) > 0).sum().max() <= 2
    top = model.subclusters("+".join(model.cluster_names), 3)
    assert set(top) == set(model.cluster_names)
    few = blobs[:50].copy()
    pd.testing.assert_series_equal(model.subclusters("0", 2, adata=few), two[two.index.isin(few.obs_names)])
    with pytest.raises(ValueError, match="'zzz' is no cluster of this tree"):
        model.subclusters("zzz")
    with pytest.raises(ValueError, match="n_clusters=1"):
        model.subclusters("0", 1)


def test_markers_are_genes_that_differ(model, blobs):
    table = model.markers()
    assert list(table.columns) == [
        "cluster", "versus", "gene", "log2_fold_change", "detection", "detection_other", "p", "q"
    ]  # fmt: skip
    assert len(table) == 3 * 2 * 30
    assert set(table["versus"]) == {"rest", "sibling"}
    assert table["p"].between(0, 1).all()
    assert (table["q"] >= table["p"] - 1e-12).all()
    for (name, versus), found in table.groupby(["cluster", "versus"]):
        assert name in model.cluster_names
        higher = found["log2_fold_change"] > 0
        assert higher.is_monotonic_decreasing  # genes that are higher come first
        assert found["p"][higher].is_monotonic_increasing
        assert found["p"][~higher].is_monotonic_increasing
        assert (model.markers(versus=versus).query("cluster == @name")["p"].to_numpy() == found["p"].to_numpy()).all()
    sure = table.query("versus == 'rest' and q < 0.001")
    assert len(sure) > 5
    label = model.predict()
    share = blobs.X / blobs.X.sum(1, keepdims=True)
    for row in sure.itertuples():  # in the whole counts, it goes the same way
        values = share[:, blobs.var_names == row.gene]
        assert (values[label == row.cluster].mean() > values[label != row.cluster].mean()) == (row.log2_fold_change > 0)
    assert set(model.markers(n_clusters=2)["cluster"]) == {"0", "1"}
    with pytest.raises(ValueError, match="versus='all' is not known"):
        model.markers(versus="all")


def test_markers_are_of_counts():
    real = datasets.blobs(120, 10, n_clusters=3)
    with pytest.raises(ValueError, match="Markers are tested on counts, and the likelihood is 'normal'"):
        fitted("GMVAE", real).markers()
