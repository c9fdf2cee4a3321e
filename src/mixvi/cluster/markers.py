"""Marker genes, tested on held-out counts: the clusters were not found in them, so the p-values hold."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.stats import false_discovery_control, t

from mixvi.cluster.count_splitting import Halves


class Markers(NamedTuple):
    """Each of g genes in one group of cells against another."""

    log2_fold_change: np.ndarray  # (g,) of the mean shares of held-out counts
    detection: np.ndarray  # (g,) share of the group's cells with a count
    detection_other: np.ndarray  # (g,) of the other group's
    p: np.ndarray  # (g,) two-sided, Welch's t test on log-normalised held-out counts
    q: np.ndarray  # (g,) false discovery rate over the genes (Benjamini and Hochberg 1995)


def markers(
    halves: Halves, group: np.ndarray, other: np.ndarray, stratum: np.ndarray | None = None, detected: csr_matrix = None
) -> Markers:
    """Compare two groups of cells gene by gene.

    Parameters
    ----------
    halves
        (n, g) counts in two parts; the held-out one is tested.
    group, other
        Rows of the cells of the two groups, which were found in the other part.
    stratum
        (n,) such as the batch: only differences within strata count. Those without a cell of both groups are left out.
    detected
        (n, g) whole counts, for the shares of cells with a count; ``None`` takes the held-out ones.

    Returns
    -------
    `Markers`; p is 1 where nothing can be tested.
    """
    held_out = halves.held_out
    detected = held_out if detected is None else detected
    total = np.maximum(np.asarray(held_out.sum(1), dtype=float).ravel(), 1)
    level = np.median(total)
    log = csr_matrix(diags(level / total) @ held_out)
    log.data = np.log1p(log.data)
    stratum = np.zeros(held_out.shape[0], int) if stratum is None else stratum
    difference = variance = weights = 0.0
    for s in np.unique(stratum):
        a, b = (rows[stratum[rows] == s] for rows in (group, other))
        if min(len(a), len(b)) < 2:
            continue
        (mean_a, var_a), (mean_b, var_b) = _moments(log[a]), _moments(log[b])
        weight = len(a) * len(b) / (len(a) + len(b))
        difference = difference + weight * (mean_a - mean_b)
        variance = variance + weight**2 * (var_a / len(a) + var_b / len(b))
        weights += weight
    p = np.ones(held_out.shape[1])
    if weights:
        some = variance > 0
        degrees = max(min(len(group), len(other)) - 1, 1)  # of Welch's, the fewest there can be
        p[some] = 2 * t.sf(np.abs(difference[some]) / np.sqrt(variance[some]), degrees)
    shares = [_shares(held_out[rows]) for rows in (group, other)]
    found = [np.asarray((detected[rows] > 0).mean(0)).ravel() for rows in (group, other)]
    return Markers(np.log2(shares[0] / shares[1]), *found, p, false_discovery_control(p))


def _moments(values: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (g,) of a sparse matrix."""
    mean = np.asarray(values.mean(0)).ravel()
    square = np.asarray(values.multiply(values).mean(0)).ravel()
    n = values.shape[0]
    return mean, np.maximum(square - mean**2, 0) * n / (n - 1)


def _shares(counts: csr_matrix) -> np.ndarray:
    """Share (g,) of each gene in the pooled counts, with half a count more each."""
    pooled = np.asarray(counts.sum(0), dtype=float).ravel() + 0.5
    return pooled / pooled.sum()
