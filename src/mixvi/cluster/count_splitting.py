"""Count splitting: counts in two independent parts. One part finds clusters, and the other part tests them.

A beta-binomial draw with the dispersion of the gene splits a negative binomial count. Both parts are then negative
binomial and independent of each other. So the noise of one part has no influence on clusters found in the other.

References
----------
Neufeld, Popp, Gao, Battle and Witten 2023, Negative binomial count splitting for single-cell RNA sequencing data.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

HELD_OUT = 0.2  # share of the counts that is held out; one fifth, as in five-fold cross-validation


class Halves(NamedTuple):
    """Counts (n, g) in two independent parts that add up to the whole."""

    seen: csr_matrix  # the part in which clusters are found
    held_out: csr_matrix  # the part on which clusters are tested
    share: float  # expected share of the counts that is held out


def split_counts(counts: csr_matrix, overdispersion: np.ndarray, share: float = HELD_OUT, seed: int = 0) -> Halves:
    """Split each count in two.

    Parameters
    ----------
    counts
        (n, g) raw counts.
    overdispersion
        (g,) 1 / theta of each gene: the variance is mu + mu^2 / theta. At 0, a Poisson, the split is binomial.
    share
        Expected share of the counts that is held out, above 0 and below 1.
    seed
        Seed of the draw.

    Returns
    -------
    The two parts. They are independent if the counts are negative binomial with this dispersion.
    """
    rng = np.random.default_rng(seed)
    counts = csr_matrix(counts, copy=True)
    counts.sum_duplicates()
    alpha = np.maximum(overdispersion, 1e-6)[counts.indices]  # 1e-6 is as good as a Poisson
    p = rng.beta(share / alpha, (1 - share) / alpha)
    held_out, seen = counts.copy(), counts.copy()
    held_out.data = rng.binomial(counts.data.astype(np.int64), p).astype(counts.dtype)
    seen.data = counts.data - held_out.data
    for part in (held_out, seen):
        part.eliminate_zeros()
    return Halves(seen, held_out, share)
