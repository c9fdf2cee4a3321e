"""Rare types, which partitions of all cells overlook, as they weigh little in modularity and in silhouettes."""

import logging

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from mixvi.cluster import FINE, JOINED, by_size, communities, merge_tree

logger = logging.getLogger(__name__)

FEWEST, MOST = 10, 0.02  # cells of it; share of the cells of one that others make room for
SECLUDED = 1 / 3  # of the share of edges that leave the median community: fewer leave a rare type
WIDE = 1 / 4  # of its edges leave the median community, or borders are narrow everywhere


def secluded(graph: csr_matrix, seed: int = 0) -> list[np.ndarray]:
    """Communities at a high resolution that few edges leave, for how many leave the others of the same graph.

    A patch of a larger type has many of its neighbours around it, and so have the other patches: the median of the
    shares of edges that leave is the measure. Along a line or on a sheet all patches have narrow borders, and it takes
    no type to have a narrower one; so where the median is low, nothing is found.

    Parameters
    ----------
    graph
        (n, n) weighted neighbour graph.
    seed
        Of Leiden.

    Returns
    -------
    The cells of each community, the most secluded first.
    """
    fine = communities(graph, FINE, seed)
    leaving = _leaving(fine, graph)
    median = np.median(leaving)
    fits = (np.bincount(fine) >= FEWEST) & (leaving <= SECLUDED * median) & (median >= WIDE)
    return [np.flatnonzero(fine == k) for k in np.argsort(leaving, kind="stable") if fits[k]]


def set_apart(part: np.ndarray, rare: list[np.ndarray], graph: csr_matrix, n_clusters: int | None = None) -> np.ndarray:
    """Make rare types parts of their own, but those that are more than half of a part already.

    Parameters
    ----------
    part
        (n,) part of each cell.
    rare
        The cells of each type; the first come first where there is not room for all.
    graph
        (n, n) neighbour graph.
    n_clusters
        Number of parts there may be. Where there are as many, the two that hang together most make room for a type of
        up to a fiftieth of the cells (partitions do not overlook larger ones); but not other rare types, nor parts as
        small that fewer edges leave, for their number. If no pair has more than half (``JOINED``) of the
        edges of chance, there is no room, which a warning says.

    Returns
    -------
    (n,) part of each cell, 0 the largest.
    """

    def home(cells: np.ndarray) -> int | None:
        """The part that is mostly these cells."""
        most = np.bincount(part[cells]).argmax()
        return most if 2 * (part[cells] == most).sum() > (part == most).sum() else None

    for cells in rare:
        if home(cells) is not None:
            continue
        own = part.copy()
        own[cells] = part.max() + 1
        if n_clusters is not None and len(np.unique(own)) > n_clusters:
            if len(cells) > MOST * len(own):
                continue
            leaving = _leaving(own, graph)
            small = np.flatnonzero((np.bincount(own) <= MOST * len(own)) & (leaving <= leaving[-1]))
            pair = _closest(own, graph, [*small, *({home(other) for other in rare} - {None})])
            if pair is None:
                logger.warning(
                    "%d cells look like a rare type but have no cluster of their own: n_clusters=%d leaves no room, "
                    "as no two others hang together enough to be one; a larger number may show it.",
                    len(cells), n_clusters,
                )  # fmt: skip
                continue
            own[own == pair[1]] = pair[0]
        part = own
    return by_size(part)


def _leaving(part: np.ndarray, graph: csr_matrix) -> np.ndarray:
    """Share of the edges of each part (K,) that leave it."""
    edges, n_parts = graph.tocoo(), part.max() + 1
    start, end = part[edges.row], part[edges.col]
    leaves = np.bincount(start, edges.data * (start != end), n_parts)
    return leaves / np.maximum(np.bincount(start, edges.data, n_parts), 1e-300)


def _closest(part: np.ndarray, graph: csr_matrix, but: list[int]) -> np.ndarray | None:
    """The two parts, of all but some, that hang together most; None if no two hang together."""
    rest = np.flatnonzero(~np.isin(part, but))
    codes, values = pd.factorize(part[rest])
    tree = merge_tree(codes, graph[rest][:, rest], [str(k) for k in range(len(values))])
    if not len(tree.connectivity) or tree.connectivity[0] <= JOINED:
        return None
    return values[tree.linkage[0, :2].astype(int)]
