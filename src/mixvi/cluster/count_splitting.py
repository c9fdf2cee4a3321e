"""Count splitting: two independent parts of the same counts, one to find clusters with and one to test them on.

A negative binomial count is cut by a beta-binomial draw with the dispersion of its gene. Both parts are then negative
binomial and independent of each other, so that clusters found in the one owe nothing to the noise of the other.

References
----------
Neufeld, Popp, Gao, Battle and Witten 2023, Negative binomial count splitting for single-cell RNA sequencing data.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

HELD_OUT = 0.2  # share of the counts that tests: the usual fifth of a five-fold split


class Halves(NamedTuple):
    """Counts (n, g) in two independent parts that add up to the whole."""

    seen: csr_matrix  # finds clusters
    held_out: csr_matrix  # tests them
    share: float  # expected share of the counts that is held out


def split_counts(counts: csr_matrix, overdispersion: np.ndarray, share: float = HELD_OUT, seed: int = 0) -> Halves:
    """Cut each count in two.

    Parameters
    ----------
    counts
        (n, g) raw counts.
    overdispersion
        (g,) 1 / theta of each gene: the variance is mu + mu^2 / theta. 0 is a Poisson gene, which is cut binomially.
    share
        Expected share of the counts that is held out, above 0 and below 1.
    seed
        Of the draw.

    Returns
    -------
    The two parts. They are independent if the counts are negative binomial with this dispersion.
    """
    rng = np.random.default_rng(seed)
    counts = csr_matrix(counts, copy=True)
    counts.sum_duplicates()
    alpha = np.maximum(overdispersion, 1e-6)[counts.indices]  # so near to Poisson that no draw tells
    p = rng.beta(share / alpha, (1 - share) / alpha)
    held_out, seen = counts.copy(), counts.copy()
    held_out.data = rng.binomial(counts.data.astype(np.int64), p).astype(counts.dtype)
    seen.data = counts.data - held_out.data
    for part in (held_out, seen):
        part.eliminate_zeros()
    return Halves(seen, held_out, share)
