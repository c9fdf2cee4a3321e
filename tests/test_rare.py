"""Rare types: what is one and what is not, and how they come by parts of their own."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from mixvi import cluster, consensus, rare

N, N_RARE = 1500, 25


@pytest.fixture(scope="module")
def planted():
    """Two clouds, and the first few cells beside one of them; and the graph."""
    x = np.random.default_rng(0).normal(size=(N, 8))
    x[N // 2 :, 0] += 10
    x[:N_RARE, 1] += 6
    return x, cluster.neighbor_graph(x)


def test_a_rare_type_is_found(planted):
    (found,) = rare.secluded(planted[1])
    assert set(range(N_RARE)) <= set(found)
    assert len(found) < 1.2 * N_RARE


def test_nine_cells_are_not_a_type(planted):
    x = planted[0].copy()
    x[9:N_RARE, 1] -= 6
    assert rare.secluded(cluster.neighbor_graph(x)) == []


@pytest.mark.parametrize("n_dim", [2, 8, 30])
def test_a_cloud_has_no_rare_types(n_dim):
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(N, n_dim))
        assert rare.secluded(cluster.neighbor_graph(x, seed), seed) == []


def test_a_line_has_no_rare_types():
    rng = np.random.default_rng(0)
    line = np.column_stack([np.linspace(0, 200, N), rng.normal(size=(N, 3))])
    graph = cluster.neighbor_graph(line)
    fine = cluster.communities(graph, rare.FINE)
    leaving = [graph[fine == k][:, fine != k].sum() / graph[fine == k].sum() for k in range(fine.max() + 1)]
    assert np.median(leaving) < 0.2  # though few edges leave any piece of it
    assert rare.secluded(graph) == []


def test_cells_without_neighbours_are_no_types():
    assert rare.secluded(csr_matrix((50, 50))) == []


def test_as_many_parts_as_are_open(planted):
    graph = planted[1]
    part, few = np.repeat([0, 1], N // 2), [np.arange(N_RARE)]
    own = rare.set_apart(part, few, graph)
    np.testing.assert_array_equal(own, np.where(np.arange(N) < N_RARE, 2, 1 - part))  # the cut cloud is the smaller one
    np.testing.assert_array_equal(part, np.repeat([0, 1], N // 2))
    np.testing.assert_array_equal(rare.set_apart(part, few, graph, 3), own)


def test_room_is_made_where_two_parts_hang_together(planted):
    """Three parts, one cloud cut in two: the halves become one again."""
    x, graph = planted
    cut = np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2)
    own = rare.set_apart(cluster.by_size(cut), [np.arange(N_RARE)], graph, 3)
    assert own.max() == 2
    assert set(np.flatnonzero(own == 2)) == set(range(N_RARE))
    assert len(np.unique(own[N // 2 :])) == 1


def test_no_room_is_made_for_more_than_a_fiftieth_of_the_cells(planted, monkeypatch):
    x, graph = planted
    cut = cluster.by_size(np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2))
    monkeypatch.setattr(rare, "MOST", (N_RARE - 1) / N)
    np.testing.assert_array_equal(rare.set_apart(cut, [np.arange(N_RARE)], graph, 3), cut)
    assert rare.set_apart(cut, [np.arange(N_RARE)], graph).max() == 3  # but where it is open how many there are


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_parts_that_do_not_hang_together_make_no_room(planted, n_clusters):
    part = np.repeat([0, 1], N // 2) * (n_clusters - 1)
    own = rare.set_apart(part, [np.arange(N_RARE)], planted[1], n_clusters)
    np.testing.assert_array_equal(own, part)


def test_a_type_that_is_half_of_its_part_has_one(planted):
    part = np.repeat([0, 1], N // 2)
    part[: 2 * N_RARE] = 2
    np.testing.assert_array_equal(rare.set_apart(part, [np.arange(N_RARE)], planted[1]), cluster.by_size(part))


def test_what_is_apart_does_not_make_room(planted):
    """Two rare types hang together more than anything else, and stay two."""
    x, graph = planted
    cut = np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2)
    few = np.arange(N_RARE) % 2
    halves = [np.flatnonzero(few == k) for k in (0, 1)]
    own = rare.set_apart(cluster.by_size(cut), halves, graph, 4)
    assert own.max() == 3
    assert len(np.unique(own[:N_RARE])) == 2
    assert set(np.flatnonzero(own >= 2)) == set(range(N_RARE))


@pytest.mark.parametrize("n_clusters", [None, 3])
@pytest.mark.parametrize("with_counts", [False, True])
def test_placing_finds_them(planted, n_clusters, with_counts, monkeypatch):
    """Where no partition of all cells does."""
    x, _ = planted
    monkeypatch.setattr(consensus, "count_components", lambda *_: [x, x])
    blind = cluster.by_size(np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2))
    monkeypatch.setattr(consensus, "partition", lambda *_: blind)
    monkeypatch.setattr(consensus, "islands", lambda *_: blind)
    monkeypatch.setattr(consensus, "merge_by_distance", lambda *_: blind)
    counts = csr_matrix((N, 1)) if with_counts else None
    part = consensus.place(x, counts, np.full(N, -1), 0, n_clusters).part
    assert part.max() == 2
    assert set(np.flatnonzero(part == 2)) >= set(range(N_RARE))
