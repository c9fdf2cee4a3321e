"""Leaves, clusters and their order."""

import numpy as np
import pytest

from mixvi._file import read_file, write_file
from mixvi.cluster import Tree
from mixvi.train import Clusters
from tests.model.helpers import fitted


def test_sizes_are_expected_numbers_of_cells(counts):
    model = fitted("GMVAE", counts, train={"train_size": 1.0})
    clusters = model._clusters()
    assert clusters.size.sum() == pytest.approx(120, rel=1e-4)
    order = [clusters.size[group].sum() for group in clusters.groups(3)]
    assert order == sorted(order, reverse=True)
    assert isinstance(Clusters.from_dict(clusters.to_dict()), Clusters)


@pytest.fixture
def clusters():
    """Five leaves, the first two of labelled classes: 2 and 3 are joined, then 4 and 0, then 1 with those, and all."""
    pairs = np.array([[2, 3], [4, 0], [1, 6], [5, 7]])
    nan = np.full(4, np.nan)
    tree = Tree(pairs, np.ones((4, 2), int), nan, nan, nan, nan, np.ones(4), 5, np.nan)
    size = np.array([5.0, 40.0, 10.0, 20.0, 25.0])
    part = np.repeat(np.arange(5), size.astype(int))
    return Clusters("leiden", np.arange(100), part, np.eye(5)[part], tree, 2, {}, size, 0.9, np.ones(3), 0, True)


def test_classes_come_first_then_clusters_by_size(clusters):
    assert clusters.groups(5) == [[0], [1], [4], [3], [2]]
    assert clusters.groups(4) == [[0], [1], [2, 3], [4]]  # of 30 cells and of 25
    assert clusters.groups(3) == [[0, 4], [1], [2, 3]]  # a cluster has the place of the class in it
    assert clusters.groups(2) == [[0, 1, 4], [2, 3]]
    assert clusters.groups(1) == [[0, 1, 2, 3, 4]]
    few = clusters._replace(n_classes=3)
    assert few.groups(2) == [[0, 1, 4], [2, 3]]  # too few for all classes: by size
    assert few._replace(size=np.array([1.0, 1, 9, 9, 1])).groups(2) == [[2, 3], [0, 1, 4]]


def test_plain_values_come_back_from_a_file(clusters, tmp_path):
    write_file(tmp_path / "clusters.pt", clusters.to_dict())
    again = Clusters.from_dict(read_file(tmp_path / "clusters.pt"))
    assert isinstance(again.tree, Tree)
    np.testing.assert_equal(again._asdict() | {"tree": None}, clusters._asdict() | {"tree": None})
    np.testing.assert_equal(again.tree._asdict(), clusters.tree._asdict())
