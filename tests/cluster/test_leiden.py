"""Communities: names by size, seeds, resolution, and nobody else's generator."""

import random

import igraph
import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from mixvi.cluster.leiden import by_size, leiden


def test_parts_are_renamed_by_their_size():
    np.testing.assert_array_equal(by_size(np.array([7, 3, 3, 9, 9, 9])), [2, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(by_size(np.array(["b", "a", "b", "a"])), [0, 1, 0, 1])  # of equal size: the first
    part = np.random.default_rng(0).integers(6, size=200)
    np.testing.assert_array_equal(by_size(by_size(part)), by_size(part))
    assert adjusted_rand_score(part, by_size(part)) == 1
    assert (np.diff(np.bincount(by_size(part))) <= 0).all()


def test_cliques_are_communities():
    sizes = (4, 8, 6)
    part = leiden(csr_matrix(block_diag(*(np.ones((k, k)) - np.eye(k) for k in sizes))))
    np.testing.assert_array_equal(part, np.repeat([2, 0, 1], sizes))


def test_the_partition_has_the_most_modularity_of_all():
    """Five nodes, all their partitions tried."""
    dense = np.triu(np.random.default_rng(3).random((5, 5)), 1)
    a = dense + dense.T
    ends = a.sum(1)

    def modularity(part):
        same = np.equal.outer(part, part)
        return ((a - np.outer(ends, ends) / a.sum()) * same).sum()

    every = [np.array(part) for part in np.ndindex(5, 5, 5, 5, 5)]
    assert modularity(leiden(csr_matrix(a))) == pytest.approx(max(map(modularity, every)))


def test_a_higher_resolution_gives_more_communities(four_blobs):
    graph, y = four_blobs
    n_found = [leiden(graph, resolution).max() + 1 for resolution in (0.01, 1.0, 4.0, 1000.0)]
    assert n_found[0] == 4  # nothing joins what no edge joins
    assert n_found == sorted(n_found)
    assert n_found[1] < n_found[2] < n_found[3] == 300
    fine = leiden(graph, 4.0)
    assert all(len(set(y[fine == k])) == 1 for k in range(fine.max() + 1))


def test_the_seed_decides():
    dense = np.triu(np.random.default_rng(0).random((150, 150)) < 0.05, 1).astype(float)
    graph = csr_matrix(dense + dense.T)
    found = [leiden(graph, seed=seed) for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(found[0], found[1])
    assert any((found[0] != other).any() for other in found[2:])


def test_generators_of_others_are_left_alone(four_blobs):
    def drawn():
        random.seed(5)
        return igraph.Graph.Erdos_Renyi(n=30, m=40).get_edgelist()

    before = drawn()
    state = random.getstate()
    leiden(four_blobs[0])
    assert random.getstate() == state
    assert drawn() == before


def test_cells_without_an_edge_stand_alone():
    np.testing.assert_array_equal(leiden(csr_matrix((3, 3))), [0, 1, 2])
