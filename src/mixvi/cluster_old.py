"""Partitions of a latent space: the neighbour graph, Leiden at a wanted number of clusters, merging.

The graph is scanpy's and the communities are igraph's; here stands only how many communities there are to be.
"""

import random
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import anndata as ad
import igraph
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.sparse import csr_matrix, triu
from scipy.spatial.distance import cdist

N_NEIGHBORS = 15
RESOLUTIONS = (1e-3, 50.0)  # between one community and one for a handful of cells
LEIDEN_ITERATIONS = 2
SEARCH_STEPS = 24  # halves the log range of resolutions to a millionth
FINE = 6.0  # resolution of many small communities
JOINED = 1 / 2  # of the edges expected: parts with more between them are one


def leiden(latent: np.ndarray, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Leiden communities on the neighbour graph of a latent space.

    Parameters
    ----------
    latent
        (n, d) latent means.
    resolution
        Of the modularity: higher gives more communities.
    seed
        Of the graph's layout and of Leiden.

    Returns
    -------
    (n,) community of each cell, 0 the largest.
    """
    return communities(neighbor_graph(latent, seed), resolution, seed)


def communities(graph: csr_matrix, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Leiden communities (n,) of a neighbour graph (n, n), 0 the largest; see `leiden`."""
    return _Communities(graph, seed).at(resolution)


def partition(graph: csr_matrix, n_clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """Split cells into as many parts as asked for, without a look at anything but their neighbour graph.

    Leiden's resolution is searched for exactly ``n_clusters`` communities; where it jumps over that number, the next
    finer partition is merged along its strongest connections.

    Parameters
    ----------
    graph
        (n, n) weighted neighbour graph.
    n_clusters
        Number of parts; ``None`` takes the communities at resolution 1.
    seed
        Of Leiden.

    Returns
    -------
    (n,) part of each cell, 0 the largest.
    """
    if n_clusters == 1 or graph.nnz == 0:
        return np.zeros(graph.shape[0], dtype=int)
    found = _Communities(graph, seed)
    if n_clusters is None:
        return found.at(1.0)
    low, high = np.log(RESOLUTIONS)
    finer = None
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        part = found.at(np.exp(middle))
        k = part.max() + 1
        if k == n_clusters:
            return part
        if k > n_clusters:
            high, finer = middle, part
        else:
            low = middle
    if finer is None:
        finer = found.at(RESOLUTIONS[1])
    return merge(finer, graph, n_clusters)


def modularity(part: np.ndarray, graph: csr_matrix) -> float:
    """How many more edges of a graph (n, n) parts (n,) keep than by chance, as a share of all; at most 1."""
    edges = triu(graph, 1).tocoo()
    whole = igraph.Graph(graph.shape[0], np.column_stack([edges.row, edges.col]))
    return whole.modularity(part.tolist(), weights=edges.data)


def neighbor_shares(part: np.ndarray, graph: csr_matrix, n_parts: int) -> np.ndarray:
    """What the graph says of each cell (n, K): half its own part, half those of its neighbours; unsure at the borders.

    Of cells of no part (n,), -1 or beyond K, only the neighbours speak, and where there are none, the row is 0.
    """
    rows = np.flatnonzero((part >= 0) & (part < n_parts))
    own = csr_matrix((np.ones(len(rows)), (rows, part[rows])), shape=(len(part), n_parts))
    reach = (graph @ own).toarray()
    shares = reach / np.maximum(reach.sum(1, keepdims=True), 1e-300) + own.toarray()
    return shares / np.maximum(shares.sum(1, keepdims=True), 1e-300)


def neighbor_graph(latent: np.ndarray, seed: int = 0) -> csr_matrix:
    """Scanpy's weighted neighbour graph (n, n) of a latent space (n, d); fewer than three cells have no neighbours."""
    cells = ad.AnnData(np.asarray(latent, dtype=np.float32))
    n_neighbors = min(N_NEIGHBORS, cells.n_obs - 1)
    if n_neighbors < 2:
        return csr_matrix((cells.n_obs, cells.n_obs))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # umap's word on its own seed and threads
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
    return cells.obsp["connectivities"]


class MergeTree(NamedTuple):
    """Clusters, joined pair by pair until one is left, each time the two that hang together most.

    A pair hangs together by its edges in the neighbour graph over those expected of two clusters of their sizes.
    """

    names: list[str]  # K
    linkage: np.ndarray  # (K - 1, 4), as in scipy.cluster.hierarchy: both parts, height, number of leaves
    connectivity: np.ndarray  # (K - 1,) edges of the pair over expected ones; 0 where nothing joins them

    def cut(self, n_clusters: int) -> pd.Series:
        """Number of the group (0, ...) of each cluster when ``n_clusters`` are left."""
        k = len(self.names)
        if not 1 <= n_clusters <= k:
            raise ValueError(f"n_clusters={n_clusters}; the tree of {k} clusters can be cut into 1 to {k}.")
        group = {leaf: [leaf] for leaf in range(k)}
        for step, (a, b) in enumerate(self.linkage[: k - n_clusters, :2].astype(int)):
            group[k + step] = group.pop(a) + group.pop(b)
        leaves = sorted(group.values(), key=min)
        return pd.Series({self.names[leaf]: i for i, members in enumerate(leaves) for leaf in members})[self.names]


def merge_tree(part: np.ndarray, graph: csr_matrix, names: Sequence[str]) -> MergeTree:
    """The tree of K clusters.

    Parameters
    ----------
    part
        (n,) number of the cluster of each cell, below K.
    graph
        (n, n) neighbour graph.
    names
        K.
    """
    k, n = len(names), len(part)
    member = csr_matrix((np.ones(n), (part, np.arange(n))), shape=(k, n))
    edges = (member @ graph @ member.T).toarray()
    node, leaves, linkage, connectivity = list(range(k)), [1] * k, [], []
    while len(node) > 1:
        size = edges.sum(1)  # edge ends of each cluster
        strength = edges * size.sum() / np.maximum(np.outer(size, size), 1e-300)
        np.fill_diagonal(strength, -1)
        a, b = sorted(np.unravel_index(strength.argmax(), strength.shape))
        connectivity.append(strength[a, b])
        linkage.append([node[a], node[b], 1 / (1 + strength[a, b]), leaves[a] + leaves[b]])
        edges[a] += edges[b]
        edges[:, a] += edges[:, b]
        edges = np.delete(np.delete(edges, b, 0), b, 1)
        node[a], leaves[a] = k + len(linkage) - 1, leaves[a] + leaves[b]
        del node[b], leaves[b]
    linkage = np.array(linkage, dtype=float).reshape(-1, 4)
    linkage[:, 2] = np.maximum.accumulate(linkage[:, 2])  # a joint cluster may hang together with a third one more
    return MergeTree(list(names), linkage, np.array(connectivity))


def merge(part: np.ndarray, graph: csr_matrix, n_clusters: int | None = None) -> np.ndarray:
    """Merge parts pairwise, each time the pair with the most edges for its sizes.

    Parameters
    ----------
    part
        (n,) part of each cell.
    graph
        (n, n) neighbour graph.
    n_clusters
        How many to leave; ``None`` leaves those of which no pair has more than half (``JOINED``) of the edges that
        chance would put between two parts of their sizes.

    Returns
    -------
    (n,) part of each cell, 0 the largest.
    """
    part, values = pd.factorize(part)
    tree = merge_tree(part, graph, [str(k) for k in range(len(values))])
    if n_clusters is None:
        n_clusters = len(values) - np.append(tree.connectivity > JOINED, False).argmin()
    return by_size(tree.cut(min(n_clusters, len(values))).to_numpy()[part])


def merge_by_distance(part: np.ndarray, view: np.ndarray, n_clusters: int) -> np.ndarray:
    """Merge parts pairwise, each time the pair whose union adds least to the squares within parts (Ward 1963).

    Parameters
    ----------
    part
        (n,) part of each cell.
    view
        (n, d) where the cells are.
    n_clusters
        How many to leave, if there are as many.

    Returns
    -------
    (n,) part of each cell, 0 the largest.

    References
    ----------
    Ward 1963, Hierarchical grouping to optimize an objective function.
    """
    joint, values = pd.factorize(part)
    size = np.bincount(joint)[:, None].astype(float)  # (k, 1)
    mean = pd.DataFrame(view).groupby(joint).mean().to_numpy(copy=True)  # (k, d)
    for _ in range(len(values) - n_clusters):
        cost = cdist(mean, mean, "sqeuclidean") / (1 / size + 1 / size.T)
        np.fill_diagonal(cost, np.inf)
        a, b = sorted(np.unravel_index(cost.argmin(), cost.shape))
        mean[a] = (size[a] * mean[a] + size[b] * mean[b]) / (size[a] + size[b])
        size[a] += size[b]
        mean, size = np.delete(mean, b, 0), np.delete(size, b, 0)
        joint = np.where(joint == b, a, joint)
        joint[joint > b] -= 1
    return by_size(joint)


class _Communities:
    """Leiden communities of one graph at any resolution of the modularity; igraph's copy of the graph is made once."""

    def __init__(self, graph: csr_matrix, seed: int):
        edges = triu(graph, 1).tocoo()
        self.seed = seed
        self.graph = igraph.Graph(graph.shape[0], np.column_stack([edges.row, edges.col]))
        self.graph.es["weight"] = edges.data

    def at(self, resolution: float) -> np.ndarray:
        """(n,) community of each cell, 0 the largest."""
        igraph.set_random_number_generator(random.Random(self.seed))
        try:
            found = self.graph.community_leiden(
                "modularity", weights="weight", resolution=resolution, n_iterations=LEIDEN_ITERATIONS
            )
        finally:
            igraph.set_random_number_generator(random)
        return by_size(np.array(found.membership))


def by_size(part: np.ndarray) -> np.ndarray:
    """Rename parts so that 0 is the largest; equal sizes keep the order of their first cell."""
    codes, values = pd.factorize(part)
    rank = np.empty(len(values), dtype=int)
    rank[np.argsort(-np.bincount(codes), kind="stable")] = np.arange(len(values))
    return rank[codes]
