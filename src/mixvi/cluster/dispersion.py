"""Overdispersion of genes: how much more a gene varies between like cells than Poisson counts do.

Like cells are nearest neighbours. One half of the genes finds them, and the other half is measured. The noise of a gene
then has no say in which cells are alike, so it is not taken for a difference between cells.
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
        (n,) number of the stratum of each cell, such as its batch; neighbours are of the same one. ``None`` is one
        stratum.
    seed
        Of the cells that are measured where there are more than 10,000, and of the principal components.

    Returns
    -------
    (g,) at least 0; 0 for genes without counts. It is too low for a gene that is more than a tenth of all counts, as it
    is part of the total that it is compared with.
    """
    some = sample(counts.shape[0], seed)
    stratum = np.zeros(len(some), int) if stratum is None else stratum[some]
    if np.bincount(stratum, minlength=1).max() <= 2:
        stratum = np.zeros(len(some), int)  # cells that cannot be compared within strata are compared across them
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
    """Nearest neighbours (n, n) of each cell by these genes; random ones if fewer than three genes can tell."""
    n, k = counts.shape[0], min(N_NEIGHBORS, counts.shape[0] - 1)
    if counts.shape[1] < 3:
        view = np.random.default_rng(seed).random((n, 1))
    else:
        view = principal_components(log_normalised(counts), seed)
    near = nearest(view, k)
    return csr_matrix((np.ones(n * k), near.ravel(), np.arange(0, n * k + 1, k)), (n, n))


def _moments(counts: csr_matrix, genes: np.ndarray, near: csr_matrix) -> np.ndarray:
    """Variance beyond Poisson, and squared means, of these genes around the mean profile of a cell's neighbours.

    That mean has noise of its own, so the expected variance of a difference is larger than that of a count. The mean is
    squared by multiplying it with the cell's own count, which does not share this noise.
    """
    total = np.asarray(counts.sum(1))  # (n, 1)
    pooled = np.maximum(near @ total, 1)
    x = counts[:, genes].toarray()
    mean = (near @ counts[:, genes]).toarray() * (total / pooled)
    poisson, inflation = mean * (1 + total / pooled), 1 + (near @ total**2) / pooled**2
    least = (total**2).sum() * (x.sum(0) / max(total.sum(), 1)) ** 2  # were all cells alike: of use for rare genes
    return np.stack([((x - mean) ** 2 - poisson).sum(0), np.maximum((x * mean * inflation).sum(0), least)])
