"""Neighbour graphs of cells: views of the counts, and shared neighbours in each.

A view is a matrix (n, d) in which near cells are similar. Each view gives a graph of shared nearest neighbours.
Clusters are communities of a weighted mean of these graphs.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, identity
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

N_COMPONENTS = 30  # principal components of a view, within the usual 10 to 50
N_NEIGHBORS = 15  # scanpy's default
PEARSON_THETA = 100.0  # inverse dispersion in the null model of Pearson residuals, as its authors chose
ROUNDING = 1e-4  # smaller differences are rounding errors of single precision
SAMPLE = 10_000  # cells from which a statistic is estimated; the standard error of a share is then at most 0.005


def sample(n: int, seed: int) -> np.ndarray:
    """Rising row numbers of all n cells, or of 10,000 random ones if there are more.

    Parameters
    ----------
    n
        Number of cells.
    seed
        Seed of the draw.

    Returns
    -------
    (m,) row numbers.
    """
    return np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLE])


def shared_neighbors(view: np.ndarray, n_neighbors: int = N_NEIGHBORS) -> csr_matrix:
    """Graph whose weights are the Jaccard index of two cells' lists of nearest neighbours.

    Parameters
    ----------
    view
        (n, d) coordinates of each cell.
    n_neighbors
        Number of neighbours in a list, beside the cell itself. Two lists with a single common entry give no edge.

    Returns
    -------
    (n, n) symmetric weights in [0, 1]. Fewer than three cells have no edges.

    References
    ----------
    Jarvis and Patrick 1973, Clustering using a similarity measure based on shared near neighbors.
    """
    n, k = len(view), min(n_neighbors, len(view) - 1)
    if k < 2:
        return csr_matrix((n, n))
    near = nearest(view, k)
    lists = csr_matrix((np.ones(n * k, np.float32), near.ravel(), np.arange(0, n * k + 1, k)), (n, n)) + identity(n)
    graph = (lists @ lists.T).tocsr()  # entries in common
    graph.data[graph.data <= 1] = 0
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.data /= 2 * (k + 1) - graph.data  # Jaccard index
    return graph


def nearest(view: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other cells of each cell, by Euclidean distance.

    Parameters
    ----------
    view
        (n, d) coordinates of each cell.
    k
        Number of neighbours, below n.

    Returns
    -------
    (n, k) row numbers.
    """
    view = np.ascontiguousarray(view, dtype=np.float32)
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(view).kneighbors(return_distance=False)


def count_views(counts: csr_matrix, seed: int = 0) -> dict[str, np.ndarray]:
    """Principal components of log-normalised counts and of Pearson residuals.

    Parameters
    ----------
    counts
        (n, g) raw counts. Each view needs a dense matrix of 4 n g bytes for a moment.
    seed
        Seed of the randomised decomposition.

    Returns
    -------
    ``"log-normalised"`` and ``"residuals"``, (n, p) each with p <= 30. A view in which all cells are equal is left out.

    References
    ----------
    Lause, Berens and Kobak 2021, Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data.
    """
    views = {}
    for name, make in (("log-normalised", log_normalised), ("residuals", pearson_residuals)):
        if min(counts.shape) > 2 and (view := principal_components(make(counts), seed)).any():
            views[name] = view
    return views


def log_normalised(counts: csr_matrix) -> np.ndarray:
    """log(1 + x m / l) of counts x (n, g), where l is the library size of a cell and m the median of l."""
    total = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    log = csr_matrix(diags(np.median(total) / np.maximum(total, 1)) @ counts, dtype=np.float32)
    log.data = np.log1p(log.data)
    return log.toarray()


def pearson_residuals(counts: csr_matrix) -> np.ndarray:
    """(x - mu) / sqrt(mu + mu^2 / theta) of counts x (n, g), clipped at the root of the number of cells."""
    x = counts.toarray().astype(np.float32)
    total, share = x.sum(1, dtype=np.float64, keepdims=True), x.sum(0, dtype=np.float64, keepdims=True)
    mu = (total * (share / max(share.sum(), 1))).astype(np.float32)
    x -= mu
    x /= np.sqrt(mu + mu * mu / np.float32(PEARSON_THETA) + np.float32(1e-12))
    limit = np.float32(len(x) ** 0.5)
    return np.clip(x, -limit, limit, out=x)


def principal_components(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Principal components of cells.

    Parameters
    ----------
    values
        (n, g) values.
    seed
        Seed of the randomised decomposition.

    Returns
    -------
    (n, p) scores of up to 30 components; one column of zeros if all cells are equal.
    """
    if np.ptp(values, axis=0).max() <= ROUNDING:
        return np.zeros((len(values), 1))
    n_components = min(N_COMPONENTS, *values.shape)
    return PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(values)
