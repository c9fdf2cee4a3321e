"""What became of clusters."""

import numpy as np

from mixvi.cluster.correspondence import Change, correspondence


def changes(*groups, n_before=None, n_after=None):
    """Of groups (earlier cluster, later cluster, number of cells)."""
    before, after, cells = map(np.array, zip(*groups, strict=True))
    n_before, n_after = n_before or before.max() + 1, n_after or after.max() + 1
    return sorted(correspondence(np.repeat(before, cells), np.repeat(after, cells), n_before, n_after))


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


def test_most_is_more_than_half():
    assert changes((0, 0, 10), (-1, 0, 90)) == [Change("gone", [0], []), Change("new", [], [0])]
    found = changes((-1, 0, 40), (0, 0, 35), (1, 0, 25), (0, 1, 50), (1, 2, 50))  # no majority in the first
    assert found == [Change("rearranged", [], [0]), Change("stays", [0], [1]), Change("stays", [1], [2])]
    found = changes((0, 0, 34), (0, 1, 33), (0, 2, 33), (1, 0, 60), (2, 1, 60), (3, 2, 60))  # scattered
    assert found[0] == Change("gone", [0], [])
    assert [change.kind for change in found[1:]] == ["stays"] * 3


def test_clusters_without_cells():
    found = changes((0, 0, 5), (2, 1, 5), n_before=4, n_after=3)
    assert found == [
        Change("gone", [1], []), Change("gone", [3], []), Change("new", [], [2]), Change("stays", [0], [0]),
        Change("stays", [2], [1]),
    ]  # fmt: skip


def test_every_cluster_is_in_one_change(rng):
    before, after = rng.integers(-1, 9, 500), rng.integers(0, 7, 500)
    found = correspondence(before, after, 9, 7)
    assert sorted(sum((change.before for change in found), [])) == list(range(9))
    assert sorted(sum((change.after for change in found), [])) == list(range(7))
