"""From views to leaves: what is there is found, noise is one cluster, and views that say nothing do not count."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from mixvi.cluster import count_views, find_partition
from mixvi.cluster.partition import MAX_LEAVES, leaves, mean_graph, neighbor_shares
from tests.cluster.populations import draw, evidence_of, profiles

N, G = 400, 60


@pytest.fixture
def blobs(rng):
    y = rng.choice(4, N, p=[0.4, 0.3, 0.2, 0.1])
    evidence = evidence_of(draw(rng, 150 * profiles(rng, 4, G)[y]))
    return evidence, count_views(evidence.halves.seen), y


def test_populations_of_counts_are_found(blobs):
    evidence, views, y = blobs
    found = find_partition(views, evidence)
    tree = found.tree
    assert tree.n_leaves == found.part.max() + 1 > 4
    assert tree.n_default == 4
    assert adjusted_rand_score(y, tree.cut(4)[found.part]) > 0.98
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.graph.shape == (N, N)
    again = find_partition(views, evidence)
    np.testing.assert_array_equal(again.part, found.part)
    np.testing.assert_array_equal(again.tree.pairs, found.tree.pairs)


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_one_cluster(seed):
    rng = np.random.default_rng(seed)
    counts = draw(rng, 100 * rng.uniform(0.5, 2, (N, 1)) * profiles(rng, 1, G))
    evidence = evidence_of(counts, seed=seed)
    found = find_partition(count_views(evidence.halves.seen), evidence, seed=seed)
    assert found.tree.n_leaves > 1
    assert found.tree.n_default == 1


def test_a_view_of_noise_hardly_counts(blobs, rng):
    evidence, views, y = blobs
    graph, weights = mean_graph(views | {"noise": rng.normal(size=(N, 5))}, evidence, 0)
    assert weights["noise"] < 0.05
    assert min(weights["log-normalised"], weights["residuals"]) > 0.4
    assert sum(weights.values()) == pytest.approx(1)
    _, blind = mean_graph(views | {"noise": rng.normal(size=(N, 5))}, None, 0)
    assert set(blind.values()) == {1 / 3}
    noise = evidence_of(draw(rng, 100 * profiles(rng, 1, G).repeat(N, 0)))
    _, alike = mean_graph(count_views(noise.halves.seen), noise, 0)
    assert sum(alike.values()) == pytest.approx(1)  # also where no view says anything
    assert np.isfinite(list(alike.values())).all()


@pytest.mark.parametrize("wanted", [1, 4, 30, 100])
def test_there_are_as_many_leaves_as_wanted(four_blobs, wanted):
    graph, y = four_blobs
    part = leaves(graph, wanted)
    assert part.max() + 1 >= wanted
    assert part.max() + 1 <= max(int(300**0.5), wanted) <= max(MAX_LEAVES, wanted)
    assert all(len(set(y[part == k])) == 1 for k in range(part.max() + 1))
    assert (np.bincount(part) > 0).all()


def test_the_same_leaves_whatever_is_wanted_below_their_number(four_blobs):
    graph, _ = four_blobs
    np.testing.assert_array_equal(leaves(graph), leaves(graph, 5))


def test_cells_without_an_edge_are_dealt_out():
    np.testing.assert_array_equal(leaves(csr_matrix((5, 5)), 2), [0, 1, 0, 1, 0])
    assert (leaves(csr_matrix((5, 5))) == 0).all()


def test_shares_are_half_a_cells_own_and_half_its_neighbours():
    graph = csr_matrix(np.array([[0, 3, 1, 0, 2], [3, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [2, 0, 0, 0, 0]], float))
    shares = neighbor_shares(np.array([0, 0, 1, 1, -1]), graph)
    np.testing.assert_allclose(shares, [[1 / 2 + 3 / 8, 1 / 8], [1, 0], [1 / 2, 1 / 2], [0, 1], [1, 0]])
    wide = neighbor_shares(np.array([0, 0, 1, 1, -1]), graph, 3)
    np.testing.assert_allclose(wide, np.column_stack([shares, np.zeros(5)]))
    assert (neighbor_shares(np.full(5, -1), graph, 2) == 0).all()
