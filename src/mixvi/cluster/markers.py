"""Marker genes, tested on held-out counts. These counts did not find the clusters, so the p-values are valid."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.stats import false_discovery_control, t

from mixvi.cluster.count_splitting import Halves


class Markers(NamedTuple):
    """Test results of g genes, in one group of cells against another."""

    log2_fold_change: np.ndarray  # (g,) log2 ratio of the genes' shares in the pooled held-out counts
    detection: np.ndarray  # (g,) share of the group's cells in which the gene has a count
    detection_other: np.ndarray  # (g,) the same in the other group
    p: np.ndarray  # (g,) two-sided, Welch's t test on log-normalised held-out counts
    q: np.ndarray  # (g,) false discovery rate over the genes (Benjamini and Hochberg 1995)


def markers(
    halves: Halves,
    group: np.ndarray,
    other: np.ndarray,
    stratum: np.ndarray | None = None,
    detected: csr_matrix | None = None,
) -> Markers:
    """Compare two groups of cells gene by gene.

    Parameters
    ----------
    halves
        (n, g) each: counts in two independent parts. The held-out part is tested; the groups come from the other.
    group, other
        (m,) row numbers of the cells of each group.
    stratum
        (n,) stratum of each cell, such as its batch. Only differences within strata count, and only in strata with two
        cells of each group. ``None`` is one stratum.
    detected
        (n, g) whole counts, for the shares of cells with a count; ``None`` takes the held-out counts.

    Returns
    -------
    `Markers`; p is 1 for a gene that cannot be tested.
    """
    held_out = halves.held_out
    detected = held_out if detected is None else detected
    total = np.maximum(np.asarray(held_out.sum(1), dtype=float).ravel(), 1)
    level = np.median(total)
    log = csr_matrix(diags(level / total) @ held_out)
    log.data = np.log1p(log.data)
    stratum = np.zeros(held_out.shape[0], int) if stratum is None else stratum
    difference, variance, weights = np.zeros(held_out.shape[1]), np.zeros(held_out.shape[1]), 0.0
    for s in np.unique(stratum):
        a, b = (rows[stratum[rows] == s] for rows in (group, other))
        if min(len(a), len(b)) < 2:
            continue
        (mean_a, var_a), (mean_b, var_b) = _moments(log[a]), _moments(log[b])
        weight = len(a) * len(b) / (len(a) + len(b))
        difference += weight * (mean_a - mean_b)
        variance += weight**2 * (var_a / len(a) + var_b / len(b))
        weights += weight
    p = np.ones(held_out.shape[1])
    if weights:
        some = variance > 0
        degrees = max(min(len(group), len(other)) - 1, 1)  # smallest possible number for Welch's test
        p[some] = 2 * t.sf(np.abs(difference[some]) / np.sqrt(variance[some]), degrees)
    shares = [_shares(held_out[rows]) for rows in (group, other)]
    own, others = (np.asarray((detected[rows] > 0).mean(0)).ravel() for rows in (group, other))
    return Markers(np.log2(shares[0] / shares[1]), own, others, p, false_discovery_control(p))


def _moments(values: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (g,) of each column."""
    mean = np.asarray(values.mean(0)).ravel()
    square = np.asarray(values.multiply(values).mean(0)).ravel()
    n = values.shape[0]
    return mean, np.maximum(square - mean**2, 0) * n / (n - 1)


def _shares(counts: csr_matrix) -> np.ndarray:
    """Share (g,) of each gene in the pooled counts, with a pseudo-count of 0.5 for each gene."""
    pooled = np.asarray(counts.sum(0), dtype=float).ravel() + 0.5
    return pooled / pooled.sum()
