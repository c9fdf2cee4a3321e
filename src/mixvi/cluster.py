"""Partitions of a latent space: the neighbour graph, Leiden at a wanted number of clusters, merging."""

import warnings

import numpy as np

N_NEIGHBORS = 15


def leiden(latent: np.ndarray, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Leiden communities of the neighbour graph of a latent space, through scanpy.

    Parameters
    ----------
    latent
        (n, d) latent means.
    resolution
        Resolution of the modularity; higher gives more communities.
    seed
        Seed of the graph and of Leiden.

    Returns
    -------
    (n,) community of each cell, 0 the largest.
    """
    return _communities(neighbor_graph(latent, seed), resolution, seed)


def partition(
    latent: np.ndarray, n_clusters: int | None = None, labels: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    return None
