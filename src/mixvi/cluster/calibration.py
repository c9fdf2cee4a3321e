"""Calibration: probabilities of clusters that are, on average, as high as the share of cells that is right."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

HOTTEST = 100.0  # beyond it all clusters are equally likely


def temperature(log_p: np.ndarray, accuracy: float) -> float:
    """The temperature T >= 1 at which the mean confidence equals the accuracy.

    Parameters
    ----------
    log_p
        (n, k) log probabilities of the clusters; ``-inf`` is allowed.
    accuracy
        Share of cells that is right, as far as it is known.

    Returns
    -------
    T of softmax(log p / T). It is 1 where the confidence is not too high in the first place, and at most ``HOTTEST``.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML.
    """

    def too_high(log_t: float) -> float:
        return softmax(log_p / np.exp(log_t), axis=1).max(1).mean() - accuracy

    if log_p.shape[1] < 2 or not too_high(0.0) > 0:  # also where training left no numbers
        return 1.0
    hottest = np.log(HOTTEST)
    return HOTTEST if too_high(hottest) > 0 else float(np.exp(brentq(too_high, 0.0, hottest, xtol=1e-4)))


def cluster_log_probabilities(log_r: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Log of the sum of responsibilities over the components of each cluster: (n, K), (K,) -> (n, k)."""
    return np.stack([logsumexp(log_r[:, group == c], axis=1) for c in range(group.max(initial=0) + 1)], 1)


def calibrated(log_r: np.ndarray, group: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of components (n, K) whose sums over clusters are calibrated.

    The temperature acts on the clusters, so it never changes which of them is the likeliest. Inside a cluster the
    components keep their shares, so that any coarser or finer cut has probabilities that add up.
    """
    log_r = log_r.astype(np.float64)
    log_p = cluster_log_probabilities(log_r, group)
    inside = np.exp(log_r - np.maximum(log_p[:, group], -1e300))  # share of a component in its cluster
    return softmax(log_p / temperature, axis=1)[:, group] * inside


def share_right(first: np.ndarray, second: np.ndarray) -> float:
    """Share of cells in their right cluster, from two independent guesses (n,) of it.

    Two guesses that are right with probability p, and else wrong in different ways, agree with probability p^2.
    """
    return float((first == second).mean() ** 0.5)
