"""Calibration: probabilities of clusters that are, on average, as high as the share of cells that is right."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

HOTTEST = 100.0  # beyond it all clusters are equally likely


def temperature(log_r: np.ndarray, accuracy: float, group: np.ndarray | None = None) -> float:
    """The temperature T >= 1 at which the mean confidence equals the accuracy.

    Parameters
    ----------
    log_r
        (n, K) log responsibilities of the components; ``-inf`` is allowed.
    accuracy
        Share of cells that are right, as far as it is known.
    group
        (K,) cluster of each component; ``None`` takes each as a cluster of its own.

    Returns
    -------
    T of softmax(log r / T), for probabilities summed over the components of a cluster. It is 1 where the confidence is
    not too high in the first place, and at most ``HOTTEST``.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML.
    """
    group = np.arange(log_r.shape[1]) if group is None else group

    def too_high(log_t: float) -> float:
        return cluster_probabilities(log_r / np.exp(log_t), group).max(1).mean() - accuracy

    if group.max(initial=0) == 0 or not too_high(0.0) > 0:  # also where training left no numbers
        return 1.0
    hottest = np.log(HOTTEST)
    return HOTTEST if too_high(hottest) > 0 else float(np.exp(brentq(too_high, 0.0, hottest, xtol=1e-4)))


def cluster_probabilities(log_r: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Probability (n, k) of each cluster: the sum over its components, of which ``group`` (K,) says the cluster."""
    member = np.eye(group.max(initial=0) + 1)[group]  # (K, k)
    return softmax(log_r, axis=1) @ member


def share_right(first: np.ndarray, second: np.ndarray) -> float:
    """Share of cells in their right cluster, from two independent guesses (n,) of it.

    Two guesses that are right with probability p, and else wrong in different ways, agree with probability p^2.
    """
    return float((first == second).mean() ** 0.5)
