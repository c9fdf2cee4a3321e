"""Marker genes of the clusters of a model."""

import pytest

from mixvi import datasets
from mixvi.model._markers import best_markers
from tests.model.helpers import fitted


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


def test_a_class_without_training_cells_has_no_markers(counts):
    """Its one labelled cell is in the validation set, so there is nothing to test."""
    for cell in range(120):
        counts.obs["type"] = counts.obs["cluster"].astype(str)
        counts.obs.iloc[cell, counts.obs.columns.get_loc("type")] = "rare"
        model = fitted("GMVAE", counts, {"labels_key": "type"}, {"max_epochs": 2, "train_size": 0.5}, n_clusters=None)
        if cell in model.validation_indices:
            break
    model.annotate()
    assert set(model.markers()["cluster"]) == set(model.cluster_names) - {"rare"}


def test_siblings_are_named_by_different_genes(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 60})
    genes = best_markers(model, 3, 3)
    table = model.markers()
    higher = table[table["log2_fold_change"] > 0].groupby(["cluster", "gene"])["versus"].agg(set)
    for name, chosen in genes.items():
        assert all(higher[name, gene] == {"rest", "sibling"} for gene in chosen)
    last = [one for one in model.tree.splits if one.kept][-1]
    assert genes[last.left]
    assert not set(genes[last.left]) & set(genes[last.right])
