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


def on_a_line(rng, place, nats, n_genes=60):
    """Counts of cells at places between two profiles, and their log-likelihood ratio against the middle.

    The halves of the line, split at 1/2, have mean profiles that differ by so many nats, if places are uniform.
    """
    share = profiles(rng, 1, n_genes)[0]
    way = rng.normal(0, 0.05, n_genes)
    way -= share @ way
    size = 4 * nats / (share @ way**2 / 2)  # half the distance: a quarter of the divergence of the ends
    p = share * np.exp((place[:, None] - 0.5) * way)
    counts = draw(rng, size * p / p.sum(1, keepdims=True))
    return counts, counts @ way - size * (p * way).sum(1).mean()
