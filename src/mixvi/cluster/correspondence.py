"""Clusters of two partitions of the same cells: which stay, and which were split, merged or are new."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


class Change(NamedTuple):
    """What became of some clusters."""

    kind: str  # "stays", "split", "merged", "rearranged", "new" or "gone"
    before: list[int]  # clusters of the earlier partition, rising
    after: list[int]  # clusters of the later partition, rising


def correspondence(before: np.ndarray, after: np.ndarray) -> list[Change]:
    """Compare two partitions of the same cells.

    An earlier and a later cluster are linked if one has most cells of the other. Clusters that are linked, also over
    others, are one change.

    Parameters
    ----------
    before
        (n,) earlier cluster of each cell, numbered from 0; -1 for a cell that was in none.
    after
        (n,) later cluster of each cell, numbered from 0.

    Returns
    -------
    The changes. Each cluster is in one of them.
    """
    n_before, n_after = before.max(initial=-1) + 1, after.max(initial=-1) + 1
    counts = np.zeros((n_before + 1, n_after), int)  # the last row is of cells that were in none
    np.add.at(counts, (before, after), 1)
    pairs = [(a, row.argmax()) for a, row in enumerate(counts[:-1]) if row.any()]
    pairs += [(column.argmax(), b) for b, column in enumerate(counts.T) if column[:-1].any()]
    a, b = np.array([pair for pair in pairs if pair[0] < n_before], dtype=int).reshape(-1, 2).T
    n = n_before + n_after
    _, group = connected_components(coo_matrix((np.ones(len(a)), (a, n_before + b)), (n, n)), directed=False)
    members = [np.flatnonzero(group == k) for k in range(group.max(initial=-1) + 1)]
    return [
        _change(nodes[nodes < n_before].tolist(), (nodes[nodes >= n_before] - n_before).tolist()) for nodes in members
    ]


def _change(before: list[int], after: list[int]) -> Change:
    kinds = {(1, 1): "stays", (1, 2): "split", (2, 1): "merged", (0, 1): "new", (1, 0): "gone"}
    return Change(kinds.get((min(len(before), 2), min(len(after), 2)), "rearranged"), before, after)
