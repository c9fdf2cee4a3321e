"""Clusters of cells, at every cut of the tree."""

import numpy as np
import pandas as pd
import pytest

from mixvi import datasets
from mixvi.model._predict import component_probabilities
from mixvi.model.streaming import collect
from tests.model.helpers import fitted


def test_rows_of_predict_and_new_cells(model, blobs):
    table = model.predict(soft=True)
    pd.testing.assert_frame_equal(model.predict(indices=[5, 1], soft=True), table.iloc[[5, 1]], rtol=1e-4, atol=1e-6)
    mask = np.arange(300) < 7
    assert model.predict(indices=mask, soft=True).shape == (7, 3)
    pd.testing.assert_frame_equal(model.predict(blobs[10:20], soft=True), table.iloc[10:20], rtol=1e-4, atol=1e-6)
    new = datasets.blobs(100, 30, n_clusters=3, n_conditions=2, kind="count", seed=1)
    assert set(model.predict(new)) <= {"0", "1", "2"}


def test_one_draw_from_the_posterior_is_as_probable_on_average(model):
    table = model.predict(soft=True, use_posterior_mean=False)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(table.mean(), model.predict(soft=True).mean(), atol=0.05)
    with pytest.raises(ValueError, match="use_posterior_mean"):
        model.predict(use_posterior_mean="yes")


def test_a_cluster_is_as_probable_as_all_its_components(model, recwarn, warned):
    log_r = collect(model, lambda cells: model.module.prior.log_responsibilities(model.module.encode(cells), cells))
    p = component_probabilities(model, log_r)
    leaves = model.tree.clusters.tree.leaves()
    for n_clusters in (1, 2, 5, model.tree.clusters.tree.n_leaves):
        noise = (model.tree.table["kind"].head(n_clusters - 1) == "noise").sum()
        recwarn.clear()
        table = model.predict(soft=True, n_clusters=n_clusters)
        assert (f"{noise} split{'s are' if noise > 1 else ' is'} noise" in warned()) == (noise > 0)
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


def test_noise_inside_a_cluster_gives_a_warning(model, recwarn, warned):
    tree = model._clusters().tree
    leaves, cluster = tree.leaves(), model._clusters().nodes(model.n_clusters)[0]
    inside = [j for j in range(len(tree.pairs)) if set(leaves[tree.n_leaves + j]) <= set(leaves[cluster])]
    noise = (tree.kind[inside] == "noise").sum()
    assert noise > 0
    recwarn.clear()
    model.subclusters("0", len(inside) + 1)
    assert f"{noise} split{'s are' if noise > 1 else ' is'} noise" in warned()


def test_one_cluster_cannot_be_cut(counts):
    model = fitted("GMVAE", counts, init=None)
    with pytest.raises(ValueError, match="n_clusters=7, but this GMVAE has one cluster and no tree"):
        model.predict(n_clusters=7)
    assert (model.predict(n_clusters=1) == "0").all()
