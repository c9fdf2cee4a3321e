"""Partitions of a latent space: the neighbour graph, Leiden at a wanted number of clusters, merging.

Graph and communities are scanpy's and leidenalg's/igraph's; here stands only how many communities there are to be.
"""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.sparse import csr_matrix

N_NEIGHBORS = 15
RESOLUTIONS = (1e-3, 50.0)  # between one community and one for a handful of cells
SEARCH_STEPS = 24  # halves the log range of resolutions to a millionth


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
    return _communities(neighbor_graph(latent, seed), resolution, seed)


def partition(
    latent: np.ndarray,
    n_clusters: int | None = None,
    labels: np.ndarray | None = None,
    n_classes: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Split cells into as many parts as asked for, without a look at anything but the latent space.

    Leiden's resolution is searched for exactly ``n_clusters`` communities; where it jumps over that number, the next
    finer partition is merged along its strongest connections. Labelled cells, if any, are parts of their own.

    Parameters
    ----------
    latent
        (n, d) latent means.
    n_clusters
        Number of parts; ``None`` takes the communities at resolution 1.
    labels
        (n,) class of each labelled cell, -1 where there is none. Class l is part l, and only the other parts come
        from the communities, those of the unlabelled cells.
    n_classes
        Number of classes l; with 0, labels are not looked at.
    seed
        Of the graph's layout and of Leiden.

    Returns
    -------
    (n,) part of each cell; -1 for unlabelled cells when the classes leave no further part.
    """
    if n_classes == 0:
        return _partition(latent, n_clusters, seed)
    part = labels.copy()
    free = labels < 0
    if n_clusters is not None and n_clusters > n_classes and free.any():
        part[free] = n_classes + _partition(latent[free], n_clusters - n_classes, seed)
    return part


def neighbor_graph(latent: np.ndarray, seed: int = 0) -> csr_matrix:
    """Scanpy's weighted neighbour graph (n, n) of a latent space (n, d)."""
    cells = ad.AnnData(np.asarray(latent, dtype=np.float32))
    n_neighbors = min(N_NEIGHBORS, cells.n_obs - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # umap's word on its own seed and threads
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", random_state=seed)
    return cells.obsp["connectivities"]


def merge(part: np.ndarray, graph: csr_matrix, n_clusters: int) -> np.ndarray:
    """Merge parts pairwise until ``n_clusters`` are left, each time the pair with the most edges for its sizes."""
    part = pd.factorize(part)[0]
    while (k := part.max() + 1) > n_clusters:
        member = csr_matrix((np.ones(len(part)), (part, np.arange(len(part)))), shape=(k, len(part)))
        edges = (member @ graph @ member.T).toarray()
        size = np.asarray(edges.sum(1)).ravel()  # edge ends of each part
        strength = edges / np.outer(size, size)
        np.fill_diagonal(strength, -1)
        a, b = np.unravel_index(strength.argmax(), strength.shape)
        part = pd.factorize(np.where(part == b, a, part))[0]
    return _by_size(part)


def _partition(latent: np.ndarray, n_clusters: int | None, seed: int) -> np.ndarray:
    if n_clusters == 1 or len(latent) < 3:
        return np.zeros(len(latent), dtype=int)
    graph = neighbor_graph(latent, seed)
    if n_clusters is None:
        return _communities(graph, 1.0, seed)
    low, high = np.log(RESOLUTIONS)
    finer = None
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        part = _communities(graph, np.exp(middle), seed)
        k = part.max() + 1
        if k == n_clusters:
            return part
        if k > n_clusters:
            high, finer = middle, part
        else:
            low = middle
    if finer is None:
        finer = _communities(graph, RESOLUTIONS[1], seed)
    return merge(finer, graph, n_clusters)


def _communities(graph: csr_matrix, resolution: float, seed: int) -> np.ndarray:
    cells = ad.AnnData(np.zeros((graph.shape[0], 1), dtype=np.float32))
    sc.tl.leiden(
        cells, resolution=resolution, adjacency=graph, random_state=seed,
        flavor="igraph", n_iterations=2, directed=False,
    )  # fmt: skip
    return _by_size(cells.obs["leiden"].cat.codes.to_numpy())


def _by_size(part: np.ndarray) -> np.ndarray:
    """Rename parts so that 0 is the largest; equal sizes keep the order of their first cell."""
    codes, values = pd.factorize(part)
    rank = np.empty(len(values), dtype=int)
    rank[np.argsort(-np.bincount(codes), kind="stable")] = np.arange(len(values))
    return rank[codes]
