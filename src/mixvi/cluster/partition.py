"""From views of cells to a partition: graph, over-fine communities, and the tree over them."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.agglomerate import MIN_WORTH, Tree, agglomerate
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.graph import sample, shared_neighbors
from mixvi.cluster.leiden import leiden

FINE = 4.0  # resolution of the leaves: two or three times as many as at 1, small enough to be joined anew
MAX_LEAVES = 64  # that a tree starts from, unless more clusters are wanted; and at most the root of the cells' number


class Partition(NamedTuple):
    """How n cells part, for the components of a mixture."""

    part: np.ndarray  # (n,) leaf of each cell, -1 for none
    shares: np.ndarray  # (n, K) how far it belongs to each leaf, by its own and by its neighbours; rows sum to 1
    graph: csr_matrix  # (n, n) neighbour graph
    tree: Tree  # over the K leaves
    weights: dict[str, float]  # share of each view in the graph


def find_partition(
    views: dict[str, np.ndarray],
    evidence: Evidence | None = None,
    n_clusters: int | None = None,
    min_worth: float = MIN_WORTH,
    seed: int = 0,
) -> Partition:
    """Partition cells that nothing is known about.

    Parameters
    ----------
    views
        (n, d) each: where the cells are, made without a look at held-out counts.
    evidence
        Of the same cells; ``None`` where there are no counts.
    n_clusters
        The fewest leaves there must be; ``None`` for as many as the resolution gives.
    min_worth
        See `agglomerate`.
    seed
        Of Leiden.
    """
    graph, weights = mean_graph(views, evidence, seed)
    part = leaves(graph, n_clusters, seed)
    tree = agglomerate(part, graph, evidence, min_worth, seed=seed)
    return Partition(part, neighbor_shares(part, graph), graph, tree, weights)


def mean_graph(
    views: dict[str, np.ndarray], evidence: Evidence | None, seed: int
) -> tuple[csr_matrix, dict[str, float]]:
    """Mean of the views' graphs (n, n), and the weight of each: what its communities say of held-out counts."""
    worth = dict.fromkeys(views, 1.0)
    if evidence is not None and len(views) > 1:
        some = sample(len(evidence.stratum), seed)
        worth = {name: _information(view, some, evidence, seed) for name, view in views.items()}
        if not any(worth.values()):
            worth = dict.fromkeys(views, 1.0)  # nothing to be told apart, whichever view is asked
    weights = {name: float(value / sum(worth.values())) for name, value in worth.items()}
    return sum(weights[name] * shared_neighbors(view) for name, view in views.items() if weights[name]), weights


def leaves(graph: csr_matrix, n_clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """Leaf (n,) of each cell: over-fine communities, at least ``n_clusters`` of them if the graph allows it."""
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
    """Shares (n, K) of each cell in K parts: half its own part, half those of its neighbours.

    A cell of no part, -1, has those of its neighbours alone, and without any a row of zeros.
    """
    n_parts = part.max(initial=0) + 1 if n_parts is None else n_parts
    rows = np.flatnonzero(part >= 0)
    own = csr_matrix((np.ones(len(rows)), (rows, part[rows])), shape=(len(part), n_parts))
    reach = (graph @ own).toarray()
    shares = reach / np.maximum(reach.sum(1, keepdims=True), 1e-300) + own.toarray()
    return shares / np.maximum(shares.sum(1, keepdims=True), 1e-300)


def _information(view: np.ndarray, some: np.ndarray, evidence: Evidence, seed: int) -> float:
    """What the communities of a view say of held-out counts, by some of its cells; 0 if nothing."""
    part = leiden(shared_neighbors(view[some]), seed=seed)
    groups = [evidence.group(some[part == k]) for k in range(part.max() + 1)]
    return max(evidence.information(groups), 0.0)
