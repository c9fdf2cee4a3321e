"""Counts of known populations, in two parts that are independent of each other."""

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.count_splitting import split_counts
from mixvi.cluster.evidence import Evidence


def draw(rng, mean, theta=np.inf):
    """Counts of these means (n, g): Poisson, or negative binomial with dispersion theta."""
    mean = np.asarray(mean, float)
    rate = mean if np.isinf(theta) else rng.gamma(theta, mean / theta)
    return csr_matrix(rng.poisson(rate).astype(float))


def profiles(rng, n_populations, n_genes, spread=1.0):
    """Mean profiles (k, g) whose logs differ by this standard deviation; rows sum to 1."""
    p = np.exp(rng.normal(size=n_genes) + spread * rng.normal(size=(n_populations, n_genes)))
    return p / p.sum(1, keepdims=True)


def evidence_of(counts, theta=np.inf, stratum=None, seed=0):
    """Evidence of counts whose dispersion is known."""
    alpha = np.full(counts.shape[1], 1 / theta)
    return Evidence(split_counts(counts, alpha, seed=seed), alpha, stratum)
