"""N2D ("not too deep"): clusters by Gaussian mixtures on the UMAP layout of a latent space.

Use it for images and other data that are not counts.
"""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import OneHotEncoder

from mixvi.cluster.graph import N_NEIGHBORS
from mixvi.cluster.leiden import by_size

N_DIMENSIONS = 10  # of the layout; the paper takes one for each class, and its image sets have ten classes
MIN_DISTANCE = 0.0  # of UMAP, as in the paper; dense groups of cells are easier to separate
MIN_LAID_OUT = N_DIMENSIONS + 2  # UMAP starts from 11 eigenvectors of the graph, which needs one more cell
SIZES = (0.75, 1.0, 1.25, 1.5) * 3  # components of the twelve mixtures, relative to the number of clusters
VARIANCE_RIDGE = 1e-4  # added to the variances of a component, for groups of cells that are flat in some dimension
K_MEANS_STARTS = 10  # scikit-learn's former default; k-means has few distinct rows to fit


def n2d(latent: np.ndarray, n_clusters: int, seed: int = 0) -> np.ndarray:
    """Clusters that twelve Gaussian mixtures on one UMAP layout agree on.

    N2D fits a single mixture, and the result depends on its start. Here each cell is described by its component in each
    of twelve mixtures, and k-means on these components finds their consensus (Wu 2015).

    Parameters
    ----------
    latent
        (n, d) latent means, of at least 12 cells.
    n_clusters
        Number of clusters; with few cells, there may be fewer.
    seed
        Seed of the layout, the mixtures and k-means.

    Returns
    -------
    (n,) cluster of each cell; 0 is the largest.

    Raises
    ------
    ValueError
        If there are fewer than 12 cells.

    References
    ----------
    McConville, Santos-Rodriguez, Piechocki and Craddock 2021, N2D: (not too) deep clustering via clustering the local
    manifold of an autoencoded embedding, ICPR.
    Wu, Liu, Xiong, Cao and Chen 2015, K-means-based consensus clustering: a unified view, IEEE TKDE.
    """
    if len(latent) < MIN_LAID_OUT:
        raise ValueError(
            f"N2D got {len(latent)} cells and needs at least {MIN_LAID_OUT}; use Leiden communities instead."
        )
    layout, rng = _layout(latent, seed), np.random.RandomState(seed)
    sizes = np.ceil(np.multiply(SIZES, n_clusters)).astype(int).clip(max=len(layout))
    mixtures = [GaussianMixture(k, reg_covar=VARIANCE_RIDGE, random_state=rng) for k in sizes]
    return _consensus(np.column_stack([mixture.fit_predict(layout) for mixture in mixtures]), n_clusters, seed)


def _consensus(parts: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Clusters (n,) that several partitions (n, m) agree on, the largest first."""
    parts, row, size = np.unique(parts, axis=0, return_inverse=True, return_counts=True)  # many cells have the same row
    members = OneHotEncoder(sparse_output=False).fit_transform(parts)
    kmeans = KMeans(min(n_clusters, len(parts)), n_init=K_MEANS_STARTS, random_state=seed)
    return by_size(kmeans.fit_predict(members, sample_weight=size)[row.ravel()])


def _layout(latent: np.ndarray, seed: int) -> np.ndarray:
    """UMAP layout (n, 10) of scanpy's neighbour graph of a latent space (n, d)."""
    import anndata as ad  # scanpy's interface; both are slow to import
    import scanpy as sc

    cells = ad.AnnData(np.asarray(latent, dtype=np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # umap warns that a seed excludes threads
        sc.pp.neighbors(cells, n_neighbors=min(N_NEIGHBORS, len(latent) - 1), use_rep="X", random_state=seed)
        sc.tl.umap(cells, min_dist=MIN_DISTANCE, n_components=N_DIMENSIONS, random_state=seed)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64)
