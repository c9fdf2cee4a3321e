"""Names of a tree's nodes, its table, and how it is printed."""

import numpy as np
import pytest

from mixvi.cluster import Tree
from mixvi.model._tree import ClusterTree, Split
from mixvi.train import Clusters


@pytest.fixture
def tree():
    """Five leaves: 0 and 1 are joined, then 2 and 3; then 4 with the first, and all. Three clusters by default."""
    pairs = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])
    cells = np.array([[10, 20], [40, 30], [25, 30], [70, 55]])
    worth, error = np.array([0.1, 9.0, 5.0, 8.0]), np.array([1.0, 0.5, 1.0, 1.0])
    between = np.array([np.nan, 0.1, 0.4, 0.0])
    found = Tree(pairs, cells, worth, error, between, between / 10, np.array([3.0, 0.5, 0.4, 0.1]), 3, 2.0)
    size = np.array([10.0, 20, 40, 30, 25])
    part = np.repeat(np.arange(5), size.astype(int))
    shares, alpha = np.eye(5)[part], np.ones(2)
    clusters = Clusters("leiden", np.arange(125), part, shares, found, 0, {}, size, np.nan, alpha, 0, False)
    return ClusterTree(clusters, ["0", "1", "2"])


def test_nodes_are_named_after_clusters(tree):
    """Clusters by size: {2, 3} has 70 cells, {0, 1} 30, {4} 25; the larger part comes first."""
    assert tree.names == ["1.1", "1.0", "0.0", "0.1", "2", "1", "0", "1+2", "0+1+2"]
    assert len(set(tree.names)) == 9
    assert tree.node("1+2") == 7
    with pytest.raises(ValueError, match="'x' is no cluster of this tree; there are"):
        tree.node("x")


def test_names_of_classes_stay(tree):
    clusters = tree.clusters._replace(n_classes=2, tree=tree.clusters.tree._replace(n_default=5))
    named = ClusterTree(clusters, ["T", "B", "0", "1", "2"])
    assert named.names[:5] == ["T", "B", "0", "1", "2"]
    assert named.names[-1] == "T+B+0+1+2"


def test_one_cluster_is_above_all(tree):
    assert ClusterTree(tree.clusters, ["0"]).names[-1] == "0"
    assert sorted(ClusterTree(tree.clusters, ["0"]).names[6:8]) == ["0.0", "0.1"]


def test_the_table_has_a_row_for_each_split(tree):
    table = tree.table
    assert list(table.columns) == list(Split._fields)
    assert table["left"].tolist() == ["0", "1", "0.0", "1.0"]
    assert table["right"].tolist() == ["1+2", "2", "0.1", "1.1"]
    assert table["cells_left"].tolist() == [70, 30, 40, 20]
    assert table["cells_right"].tolist() == [55, 25, 30, 10]
    assert table["worth"].tolist() == [8.0, 5.0, 9.0, 0.1]
    assert table["kind"].tolist() == ["gap", "grade", "gap", "noise"]
    assert table["kept"].tolist() == [True, True, False, False]
    assert [split.left for split in tree.splits] == table["left"].tolist()


def test_cuts_are_by_leaf(tree):
    assert tree.cut(2).to_dict() == {"1.1": 1, "1.0": 1, "0.0": 0, "0.1": 0, "2": 1}
    assert tree.cut(1).eq(0).all()
    with pytest.raises(ValueError, match="1 to 5"):
        tree.cut(6)


def test_what_is_below(tree):
    assert tree.below("0") == {"0.0": [2], "0.1": [3]}
    assert tree.below("1") == {"1.0": [1], "1.1": [0]}  # not supported, but the first
    assert tree.below("1+2", 2) == {"1": [0, 1], "2": [4]}
    assert list(tree.below("0+1+2")) == ["1", "2", "0.0", "0.1"]  # all that is supported
    with pytest.raises(ValueError, match="Cluster '2' is a leaf of the tree and has no parts"):
        tree.below("2")
    with pytest.raises(ValueError, match="Cluster '0' can be split into 2 to 2 parts; n_clusters=3"):
        tree.below("0", 3)


def test_it_is_printed(tree):
    assert str(tree).splitlines() == [
        "3 clusters of 125 training cells; any two differ significantly, by at least 2 nats a cell "
        "(11.8 if over 16% are confused)",
        "0+1+2 (125 cells) splits: 8 +- 1 nats, a gap, 0.0% confused",
        "  0 (70 cells) splits: 9 +- 0.5 nats, a gap, 1.0% confused, not kept",
        "    0.0 (40 cells)",
        "    0.1 (30 cells)",
        "  1+2 (55 cells) splits: 5 +- 1 nats, a grade, 4.0% confused",
        "    1 (30 cells)",
        "    2 (25 cells)",
    ]
    assert repr(tree) == str(tree)
    nan = np.full(4, np.nan)
    bare = tree.clusters.tree._replace(worth=nan, error=nan, between=nan)
    lines = str(ClusterTree(tree.clusters._replace(tree=bare), ["0", "1", "2"])).splitlines()
    assert lines[:2] == ["3 clusters of 125 training cells", "0+1+2 (125 cells) splits by connectivity 0.1"]
