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


def correspondence(before: np.ndarray, after: np.ndarray, n_before: int, n_after: int) -> list[Change]:
    """Compare two partitions of the same cells.

    A later cluster is new if most of its cells were in no earlier one. Any other is linked to an earlier cluster if one
    of them has most cells of the other. Clusters that are linked, also over others, are one change. A cluster stays if
    it is linked in both directions to one other, and to no further one.

    Parameters
    ----------
    before
        (n,) earlier cluster of each cell, numbered from 0; -1 for a cell that was in none.
    after
        (n,) later cluster of each cell, numbered from 0.
    n_before, n_after
        Numbers of clusters, of which some may have no cells.

    Returns
    -------
    The changes. Each cluster is in one of them.
    """
    counts = np.zeros((n_before + 1, n_after))  # the last row is of cells that were in none
    np.add.at(counts, (before, after), 1)
    is_new = (2 * counts[-1] > counts.sum(0)) | ~counts.any(0)
    has_most = 2 * counts[:-1] > counts[:-1].sum(1, keepdims=True)  # b of the cells of a
    is_most = 2 * counts[:-1] > counts.sum(0)  # a among the cells of b
    a, b = np.nonzero((has_most | is_most) & ~is_new)
    n = n_before + n_after
    _, group = connected_components(coo_matrix((np.ones(len(a)), (a, n_before + b)), (n, n)), directed=False)
    found = []
    for k in range(group.max(initial=-1) + 1):
        nodes = np.flatnonzero(group == k)
        earlier, later = nodes[nodes < n_before].tolist(), (nodes[nodes >= n_before] - n_before).tolist()
        mutual = len(earlier) == len(later) == 1 and (has_most & is_most)[earlier[0], later[0]]
        found.append(Change(_kind(len(earlier), len(later), mutual, bool(is_new[later].all())), earlier, later))
    return found


def _kind(n_before: int, n_after: int, mutual: bool, is_new: bool) -> str:
    """Kind of a change of so many clusters."""
    if mutual:
        return "stays"
    if n_after == 0:
        return "gone"
    if n_before == 0:
        return "new" if is_new else "rearranged"
    if n_before == 1 and n_after > 1:
        return "split"
    return "merged" if n_before > 1 and n_after == 1 else "rearranged"
