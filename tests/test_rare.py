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


def test_fewer_cells_are_not_a_type(planted, monkeypatch):
    (found,) = rare.secluded(planted[1])
    for fewest, n_found in ((len(found), 1), (len(found) + 1, 0)):
        monkeypatch.setattr(rare, "FEWEST", fewest)
        assert len(rare.secluded(planted[1])) == n_found


@pytest.fixture
def ring(monkeypatch):
    """Makes a ring of communities, of ten cells each, that the shares given of their edges leave."""

    def made(*shares):
        part = np.repeat(np.arange(len(shares)), 10)
        neighbours = np.roll(np.eye(10 * len(shares)), 10, axis=0)  # each cell has one on either side
        inside = (
            (part[:, None] == part) * (1 - np.eye(len(part))) * np.repeat(2 / np.array(shares) - 2, 10)[:, None] / 9
        )
        monkeypatch.setattr(rare, "communities", lambda graph, resolution, seed: part)
        return csr_matrix(neighbours + neighbours.T + inside)

    return made


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ((0.5, 0.5, 0.9, 0.5, 0.166), [4]),  # a third of the median, not of the mean
        ((0.5, 0.5, 0.9, 0.5, 0.167), []),
        ((0.8, 0.1, 0.8, 0.05, 0.8, 0.15, 0.8), [3, 1, 5]),  # the most secluded first
        ((0.251, 0.251, 0.251, 0.01), [3]),
        ((0.249, 0.249, 0.249, 0.01), []),  # narrow borders everywhere
    ],
)
def test_a_rare_type_is_one_by_the_edges_that_leave_it(ring, shares, found):
    assert [cells.tolist() for cells in rare.secluded(ring(*shares))] == [
        list(range(10 * k, 10 * k + 10)) for k in found
    ]


@pytest.mark.parametrize("n_dim", [2, 8, 30])
def test_a_cloud_has_no_rare_types(n_dim):
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(N, n_dim))
        assert rare.secluded(cluster.neighbor_graph(x, seed), seed) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("even", [True, False])
def test_a_line_has_no_rare_types(even, seed):
    """Its ends have one border where other pieces have two."""
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 200, N) if even else 50 * np.sort(rng.exponential(size=N))
    graph = cluster.neighbor_graph(np.column_stack([along, rng.normal(size=(N, 3))]), seed)
    assert rare.secluded(graph, seed) == []


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


def test_no_room_is_made_for_more_than_a_fiftieth_of_the_cells(planted, monkeypatch, caplog):
    x, graph = planted
    cut = cluster.by_size(np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2))
    monkeypatch.setattr(rare, "MOST", (N_RARE - 1) / N)
    np.testing.assert_array_equal(rare.set_apart(cut, [np.arange(N_RARE)], graph, 3), cut)
    assert not caplog.text
    assert rare.set_apart(cut, [np.arange(N_RARE)], graph).max() == 3  # but where it is open how many there are


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_parts_that_do_not_hang_together_make_no_room(planted, n_clusters, caplog):
    part = np.repeat([0, 1], N // 2) * (n_clusters - 1)
    own = rare.set_apart(part, [np.arange(N_RARE)], planted[1], n_clusters)
    np.testing.assert_array_equal(own, part)
    assert f"{N_RARE} cells look like a rare type" in caplog.text
    assert f"n_clusters={n_clusters} leaves no room" in caplog.text


def test_a_type_that_is_more_than_half_of_a_part_has_one(planted):
    part = np.repeat([0, 1], N // 2)
    for n_others, apart in ((N_RARE - 1, False), (N_RARE, True)):
        part[: N_RARE + n_others] = 2
        own = rare.set_apart(part, [np.arange(N_RARE)], planted[1])
        assert (own.max() == 3) == apart


@pytest.mark.parametrize("hangs_together", [True, False])
def test_only_parts_that_hang_together_make_room(planted, monkeypatch, hangs_together):
    x, graph = planted
    cut = cluster.by_size(np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2))
    rest = np.arange(N_RARE, N)
    strongest = cluster.merge_tree(cut[rest], graph[rest][:, rest], ["a", "b", "c"]).connectivity[0]
    monkeypatch.setattr(rare, "JOINED", strongest * (0.999 if hangs_together else 1))
    own = rare.set_apart(cut, [np.arange(N_RARE)], graph, 3)
    assert (len(np.unique(own[:N_RARE])) == 1 and (own[N_RARE:] != own[0]).all()) == hangs_together


@pytest.mark.parametrize(("every", "is_type", "joined"), [(50, False, True), (10, True, False)])
def test_other_types_do_not_make_room(planted, every, is_type, joined):
    """Cells from all over a cloud, which hang together with its halves more than these do with each other."""
    x, graph = planted
    some = np.arange(N // 2, N)[::every]
    cut = np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2)
    cut[some] = 3
    types = [np.arange(N_RARE), *([some] if is_type else [])]
    own = rare.set_apart(cluster.by_size(cut), types, graph, 4)
    assert own.max() == 3
    assert (np.bincount(own) == N_RARE).any()
    assert (np.bincount(own) == len(some)).any() != joined


def test_small_parts_make_no_room_for_what_more_edges_leave(planted, monkeypatch):
    """A rare type that nothing has named stands beside one cloud, and cells from all over the other ask for a part."""
    x, graph = planted
    monkeypatch.setattr(rare, "JOINED", 0.0)
    part = np.repeat([0, 1], N // 2)
    part[:N_RARE] = 2
    own = rare.set_apart(part, [np.arange(N // 2, N)[::50]], graph, 3)
    np.testing.assert_array_equal(own, cluster.by_size(part))


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


def test_labels_speak_for_themselves(planted, monkeypatch):
    """With some, communities as they are become the further clusters."""
    x, graph = planted
    monkeypatch.setattr(consensus, "secluded", lambda *_: [np.arange(N_RARE)])
    blind = cluster.by_size(np.repeat([0, 1], N // 2) * np.where(x[:, 3] > 0, 1, 2))
    monkeypatch.setattr(consensus, "partition", lambda *_: blind)
    monkeypatch.setattr(consensus, "islands", lambda *_: blind)
    asked = []
    monkeypatch.setattr(consensus, "partition_with_classes", lambda *said: asked.append(said[3]) or (blind, None))
    consensus.place(x, None, np.where(np.arange(N) % 100, -1, 0), 1, 3)
    np.testing.assert_array_equal(asked[0], blind)


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
