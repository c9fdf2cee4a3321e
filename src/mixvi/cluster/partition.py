"""From views of cells to a partition: neighbour graph, many small communities, and the tree over them."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.agglomerate import MIN_WORTH, Tree, agglomerate
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.graph import sample, shared_neighbors
from mixvi.cluster.leiden import leiden

FINE = 4.0  # resolution of the leaves; it gives two or three times as many communities as 1
MAX_LEAVES = 64  # of a tree, and at most the root of the number of cells; more only if n_clusters is larger


class Partition(NamedTuple):
    """A partition of n cells, from which the components of a mixture start."""

    part: np.ndarray  # (n,) leaf of each cell; -1 for none
    shares: np.ndarray  # (n, K) membership of each cell in each leaf, from `neighbor_shares`; rows sum to 1
    graph: csr_matrix  # (n, n) neighbour graph
    tree: Tree  # the tree over the K leaves
    weights: dict[str, float]  # share of each view in the graph


def find_partition(
    views: dict[str, np.ndarray],
    evidence: Evidence | None = None,
    n_clusters: int | None = None,
    min_worth: float = MIN_WORTH,
    seed: int = 0,
) -> Partition:
    """Partition cells without labels.

    Parameters
    ----------
    views
        (n, d) each: coordinates of the cells, by name. They must not depend on held-out counts.
    evidence
        Evidence from the same cells; ``None`` where there are no counts.
    n_clusters
        Smallest number of leaves; ``None`` for as many as the resolution gives.
    min_worth
        Nats by which any two default clusters must differ, as in `agglomerate`.
    seed
        Seed of Leiden and of samples.

    Returns
    -------
    The partition.
    """
    graph, weights = mean_graph(views, evidence, seed)
    part = leaves(graph, n_clusters, seed)
    tree = agglomerate(part, graph, evidence, min_worth)
    return Partition(part, neighbor_shares(part, graph), graph, tree, weights)


def mean_graph(
    views: dict[str, np.ndarray], evidence: Evidence | None, seed: int
) -> tuple[csr_matrix, dict[str, float]]:
    """Weighted mean of the views' graphs.

    The weight of a view is the information that its communities have about held-out counts.

    Parameters
    ----------
    views
        (n, d) each: coordinates of the cells, by name.
    evidence
        Evidence from the same cells; ``None`` gives equal weights.
    seed
        Seed of Leiden and of the sample of 10,000 cells, if there are more.

    Returns
    -------
    (n, n) graph, and the weight of each view; weights sum to 1.
    """
    worth = dict.fromkeys(views, 1.0)
    if evidence is not None and len(views) > 1:
        some = sample(len(evidence.stratum), seed)
        worth = {name: _information(view, some, evidence, seed) for name, view in views.items()}
        if not any(worth.values()):
            worth = dict.fromkeys(views, 1.0)  # no view has information
    weights = {name: float(value / sum(worth.values())) for name, value in worth.items()}
    return sum(weights[name] * shared_neighbors(view) for name, view in views.items() if weights[name]), weights


def leaves(graph: csr_matrix, n_clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """Leaves of a tree: many small communities of the graph.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    n_clusters
        Smallest number of leaves, if the graph allows it; ``None`` sets no limit.
    seed
        Seed of Leiden.

    Returns
    -------
    (n,) leaf of each cell, numbered from 0.
    """
    n = graph.shape[0]
    if graph.nnz == 0:
        return np.arange(n) % (n_clusters or 1)
    resolution, wanted = FINE, n_clusters or 1
    part = leiden(graph, resolution, seed)
    while part.max() + 1 < min(wanted, n) and resolution < 1e6:
        resolution *= 2
        part = leiden(graph, resolution, seed)
    most = max(min(MAX_LEAVES, int(n**0.5)), wanted)
    if part.max() + 1 > most:
        part = agglomerate(part, graph, infer=False).cut(most)[part]
    return part


def neighbor_shares(part: np.ndarray, graph: csr_matrix, n_parts: int | None = None) -> np.ndarray:
    """Share of each part in each cell: one half its own part, the other half the parts of its neighbours.

    Parameters
    ----------
    part
        (n,) part of each cell, numbered from 0; -1 for cells in no part, which have the shares of their neighbours.
    graph
        (n, n) symmetric weights.
    n_parts
        Number of parts K; ``None`` is one more than the highest in ``part``.

    Returns
    -------
    (n, K) shares. Rows sum to 1, or to 0 for a cell in no part whose neighbours are in no part either.
    """
    n_parts = part.max(initial=0) + 1 if n_parts is None else n_parts
    rows = np.flatnonzero(part >= 0)
    own = csr_matrix((np.ones(len(rows)), (rows, part[rows])), shape=(len(part), n_parts))
    reach = (graph @ own).toarray()
    shares = reach / np.maximum(reach.sum(1, keepdims=True), 1e-300) + own.toarray()
    return shares / np.maximum(shares.sum(1, keepdims=True), 1e-300)


def _information(view: np.ndarray, some: np.ndarray, evidence: Evidence, seed: int) -> float:
    """Information of a view's communities about held-out counts, from the cells ``some`` (m,); at least 0."""
    part = leiden(shared_neighbors(view[some]), seed=seed)
    groups = [evidence.group(some[part == k]) for k in range(part.max() + 1)]
    return max(evidence.information(groups), 0.0)
