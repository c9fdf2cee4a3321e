"""Leiden communities of a neighbour graph, by igraph."""

import random

import igraph
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, triu

N_ITERATIONS = 2  # scanpy's choice for igraph


def leiden(graph: csr_matrix, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Communities that maximise the modularity of a weighted graph.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    resolution
        Higher values give more communities; 1 is the modularity of Newman and Girvan.
    seed
        Seed of the order in which cells are visited.

    Returns
    -------
    (n,) community of each cell; 0 is the largest.

    References
    ----------
    Traag, Waltman and van Eck 2019, From Louvain to Leiden: guaranteeing well-connected communities.
    """
    edges = triu(graph, 1).tocoo()
    whole = igraph.Graph(graph.shape[0], np.column_stack([edges.row, edges.col]))
    igraph.set_random_number_generator(random.Random(seed))  # nosec B311 # no secret depends on it
    try:
        found = whole.community_leiden(
            "modularity", weights=edges.data.tolist(), resolution=resolution, n_iterations=N_ITERATIONS
        )
    finally:
        igraph.set_random_number_generator(random)
    return by_size(np.array(found.membership))


def by_size(part: np.ndarray) -> np.ndarray:
    """Rename parts (n,) so that 0 is the largest; equal sizes keep the order of their first cell."""
    codes, values = pd.factorize(part)
    rank = np.empty(len(values), dtype=int)
    rank[np.argsort(-np.bincount(codes, minlength=len(values)), kind="stable")] = np.arange(len(values))
    return rank[codes]
