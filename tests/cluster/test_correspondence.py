"""What became of clusters."""

import numpy as np

from mixvi.cluster.correspondence import Change, correspondence


def changes(*groups):
    """Of groups (earlier cluster, later cluster, number of cells)."""
    before, after, cells = map(np.array, zip(*groups, strict=True))
    return sorted(correspondence(np.repeat(before, cells), np.repeat(after, cells)))


def test_clusters_that_stay_whatever_their_numbers():
    assert changes((0, 1, 50), (1, 0, 30), (0, 0, 3)) == [Change("stays", [0], [1]), Change("stays", [1], [0])]


def test_split_merged_and_new():
    found = changes((0, 0, 30), (0, 1, 20), (1, 2, 10), (2, 2, 12), (3, 3, 9), (-1, 4, 15), (3, 4, 2))
    assert found == [
        Change("merged", [1, 2], [2]), Change("new", [], [4]), Change("split", [0], [0, 1]), Change("stays", [3], [3]),
    ]  # fmt: skip


def test_two_clusters_that_exchange_halves_are_rearranged():
    found = changes((0, 0, 20), (0, 1, 15), (1, 0, 22), (1, 1, 21), (1, 2, 3))
    assert found == [Change("rearranged", [0, 1], [0, 1, 2])]


def test_a_cluster_without_cells_is_gone():
    assert changes((0, 0, 5), (2, 1, 5)) == [
        Change("gone", [1], []), Change("stays", [0], [0]), Change("stays", [2], [1]),
    ]  # fmt: skip


def test_every_cluster_is_in_one_change(rng):
    before, after = rng.integers(-1, 9, 500), rng.integers(0, 7, 500)
    found = correspondence(before, after)
    assert sorted(sum((change.before for change in found), [])) == list(range(9))
    assert sorted(sum((change.after for change in found), [])) == list(range(7))
