"""Overdispersion of genes: how much more a gene varies among similar cells than Poisson counts do.

Similar cells are nearest neighbours. One half of the genes finds the neighbours, and the overdispersion of the other
half is measured. Then the halves change roles. So the noise of a gene does not choose its own neighbours.
"""

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.graph import N_NEIGHBORS, log_normalised, nearest, principal_components, sample


def overdispersion(counts: csr_matrix, stratum: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """1 / theta of each gene by the method of moments: the variance of a count is mu + mu^2 / theta.

    Parameters
    ----------
    counts
        (n, g) raw counts.
    stratum
        (n,) stratum of each cell, such as its batch, numbered from 0. Neighbours are in the same stratum. ``None`` is
        one stratum.
    seed
        Seed of the sample of 10,000 cells, if there are more, and of the principal components.

    Returns
    -------
    (g,) at least 0; 0 for genes without counts. It is too low for a gene with more than a tenth of all counts, because
    the gene is then a large part of the library size.
    """
    some = sample(counts.shape[0], seed)
    stratum = np.zeros(len(some), int) if stratum is None else stratum[some]
    if np.bincount(stratum, minlength=1).max() <= 2:
        stratum = np.zeros(len(some), int)  # strata are too small: compare cells across them
    by_frequency = np.argsort(-np.asarray(counts.sum(0)).ravel(), kind="stable")
    genes = by_frequency[::2], by_frequency[1::2]
    moments = np.zeros((2, counts.shape[1]))
    for s in np.unique(stratum):
        cells = csr_matrix(counts[some[stratum == s]], dtype=np.float64)
        if cells.shape[0] > 2:
            for measured, other in (genes, genes[::-1]):
                moments[:, measured] += _moments(cells, measured, _neighbors(cells[:, other], seed))
    return np.maximum(moments[0], 0) / np.maximum(moments[1], 1e-12)


def _neighbors(counts: csr_matrix, seed: int) -> csr_matrix:
    """Nearest neighbours (n, n) of each cell by these genes; random ones if there are fewer than three genes."""
    n, k = counts.shape[0], min(N_NEIGHBORS, counts.shape[0] - 1)
    if counts.shape[1] < 3:
        view = np.random.default_rng(seed).random((n, 1))
    else:
        view = principal_components(log_normalised(counts), seed)
    near = nearest(view, k)
    return csr_matrix((np.ones(n * k), near.ravel(), np.arange(0, n * k + 1, k)), (n, n))


def _moments(counts: csr_matrix, genes: np.ndarray, near: csr_matrix) -> np.ndarray:
    """Variance beyond Poisson, and squared means (2, g), of these genes around the mean of a cell's neighbours.

    The mean has noise of its own, which is taken off the variance. The squared mean is the product of the neighbours'
    mean and the cell's own count, whose noise is independent.
    """
    total = np.asarray(counts.sum(1))  # (n, 1)
    pooled = np.maximum(near @ total, 1)
    x = counts[:, genes].toarray()
    mean = (near @ counts[:, genes]).toarray() * (total / pooled)
    poisson, inflation = mean * (1 + total / pooled), 1 + (near @ total**2) / pooled**2
    least = (total**2).sum() * (x.sum(0) / max(total.sum(), 1)) ** 2  # value if all cells were alike; for rare genes
    return np.stack([((x - mean) ** 2 - poisson).sum(0), np.maximum((x * mean * inflation).sum(0), least)])
