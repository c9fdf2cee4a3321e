"""Partitions of a latent space."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage
from scipy.sparse import block_diag, csr_matrix
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from mixvi import cluster


@pytest.mark.parametrize("n_clusters", [3, 4, 7])
def test_a_wanted_number_of_parts_is_delivered(n_clusters):
    x, y = make_blobs(400, 5, centers=4, cluster_std=0.8, random_state=1)
    part = cluster.partition(cluster.neighbor_graph(x), n_clusters)
    assert len(np.unique(part)) == n_clusters
    sizes = np.bincount(part)
    assert (np.diff(sizes) <= 0).all()  # 0 is the largest
    if n_clusters == 4:
        assert adjusted_rand_score(y, part) == 1


def test_one_part_and_the_same_parts_again():
    x, _ = make_blobs(100, 5, centers=3, random_state=1)
    graph, again = cluster.neighbor_graph(x), cluster.neighbor_graph(x)
    assert (cluster.partition(graph, 1) == 0).all()
    assert (cluster.partition(cluster.neighbor_graph(x[:2]), 2) == 0).all()
    np.testing.assert_array_equal(cluster.partition(graph, 3), cluster.partition(again, 3))
    np.testing.assert_array_equal(cluster.leiden(x), cluster.leiden(x))


def test_more_parts_than_communities_are_not_promised_but_fewer_are_merged():
    blocks = [np.ones((k, k)) - np.eye(k) for k in (6, 5, 4)]
    graph = csr_matrix(block_diag(blocks)).tolil()
    graph[0, 6] = graph[6, 0] = 1  # the first two blocks touch
    part = np.repeat([0, 1, 2], [6, 5, 4])
    merged = cluster.merge(part, graph.tocsr(), 2)
    np.testing.assert_array_equal(merged, np.repeat([0, 0, 1], [6, 5, 4]))


def test_the_number_of_parts_is_what_the_graph_shows(four_blobs):
    graph, y = four_blobs
    fine = 2 * y + np.arange(300) % 2  # each blob cut in two at random
    assert adjusted_rand_score(cluster.merge(fine, graph), y) == 1
    np.testing.assert_array_equal(cluster.merge(np.zeros(300, int), graph), np.zeros(300))
    ring = np.kron(np.eye(3), np.ones((10, 10)))  # three cliques; between two of them a part of what chance would put
    for share, n_left in ((0.9 * cluster.JOINED, 3), (1.1 * cluster.JOINED, 2)):
        linked, sizes = ring.copy(), np.repeat([0, 1, 2], 10)
        edges = 0.0
        for _ in range(50):  # edges change the expectation in turn
            expected = (100 + edges) ** 2 / (300 + 2 * edges)
            edges = share * expected
        linked[:10, 10:20] = linked[10:20, :10] = edges / 100
        assert len(np.unique(cluster.merge(sizes, csr_matrix(linked)))) == n_left


def test_the_merge_tree_joins_what_touches():
    sizes = (6, 5, 4, 4)
    graph = csr_matrix(block_diag([np.ones((k, k)) - np.eye(k) for k in sizes])).tolil()
    for a, b, weight in ((0, 6, 3), (7, 11, 1)):  # the first two touch most, then the second and the third
        graph[a, b] = graph[b, a] = weight
    part = np.repeat([0, 1, 2, 3], sizes)
    tree = cluster.merge_tree(part, graph.tocsr(), ["a", "b", "c", "d"])
    assert tree.linkage[:, :2].astype(int).tolist() == [[0, 1], [4, 2], [5, 3]]
    assert tree.linkage[-1, 3] == 4
    ends = np.asarray(graph.tocsr().sum(1)).ravel()
    expected = ends[part == 0].sum() * ends[part == 1].sum() / ends.sum()
    assert tree.connectivity[0] == pytest.approx(3 / expected)
    assert tree.connectivity[2] == 0
    assert is_valid_linkage(tree.linkage)
    assert tree.cut(2).to_dict() == {"a": 0, "b": 0, "c": 0, "d": 1}
    assert tree.cut(4).to_dict() == {"a": 0, "b": 1, "c": 2, "d": 3}
    with pytest.raises(ValueError, match="1 to 4"):
        tree.cut(5)
    assert cluster.merge_tree(np.zeros(6, int), graph[:6, :6].tocsr(), ["a"]).cut(1).to_dict() == {"a": 0}


def test_the_connectivity_of_what_was_joined_is_that_of_its_cells():
    rng = np.random.default_rng(0)
    part, dense = rng.integers(6, size=40), np.triu(rng.random((40, 40)), 1)
    graph = dense + dense.T
    tree = cluster.merge_tree(part, csr_matrix(graph), list("abcdef"))
    ends = graph.sum(1)
    for left in range(6, 1, -1):
        group = tree.cut(left).to_numpy()[part]

        def connectivity(a, b, group=group):
            both = graph[np.ix_(group == a, group == b)].sum()
            return both * ends.sum() / (ends[group == a].sum() * ends[group == b].sum())

        strongest = max(connectivity(a, b) for a in range(left) for b in range(a))
        assert tree.connectivity[6 - left] == pytest.approx(strongest)


def test_merging_by_distance_is_wards():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    cells = np.arange(60)
    for k in (1, 2, 7, 60):  # from single cells, scipy's
        expected = fcluster(linkage(x, "ward"), k, "maxclust")
        assert adjusted_rand_score(expected, cluster.merge_by_distance(cells, x, k)) == 1
    part = rng.integers(8, size=60) ** 2  # of several sizes, with names between which there are gaps

    def within(part):
        return sum(((x[part == k] - x[part == k].mean(0)) ** 2).sum() for k in np.unique(part))

    for k in range(len(np.unique(part)), 1, -1):
        here, fewer = (cluster.merge_by_distance(part, x, left) for left in (k, k - 1))
        pairs = [np.where(here == a, b, here) for a in range(k) for b in range(a)]
        assert within(fewer) == pytest.approx(min(map(within, pairs)))
        assert (np.diff(np.bincount(fewer)) <= 0).all()
    assert cluster.merge_by_distance(part, x, 50).max() + 1 == len(np.unique(part))


def test_shares_are_half_a_cells_own_and_half_its_neighbours():
    graph = csr_matrix(np.array([[0, 3, 1, 0, 2], [3, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [2, 0, 0, 0, 0]], float))
    shares = cluster.neighbor_shares(np.array([0, 0, 1, 1, -1]), graph, 2)
    np.testing.assert_allclose(shares, [[1 / 2 + 3 / 8, 1 / 8], [1, 0], [1 / 2, 1 / 2], [0, 1], [1, 0]])
    beyond = cluster.neighbor_shares(np.array([0, 0, 1, 1, -1]), graph, 1)
    np.testing.assert_allclose(beyond[:, 0], [1, 1, 1, 0, 1])
