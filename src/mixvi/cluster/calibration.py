"""Calibration: the mean confidence of cluster probabilities equals the share of correct assignments."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

HOTTEST = 100.0  # highest temperature; all clusters are then almost equally likely


def temperature(log_p: np.ndarray, accuracy: float) -> float:
    """The temperature T >= 1 at which the mean confidence equals the accuracy.

    Parameters
    ----------
    log_p
        (n, k) log probabilities of the clusters; ``-inf`` is allowed.
    accuracy
        Estimated share of cells whose likeliest cluster is right.

    Returns
    -------
    T of softmax(log p / T), from 1 to ``HOTTEST``. It is 1 if the mean confidence does not exceed the accuracy.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML.
    """

    def too_high(log_t: float) -> float:
        return softmax(log_p / np.exp(log_t), axis=1).max(1).mean() - accuracy

    if log_p.shape[1] < 2 or not too_high(0.0) > 0:  # NaN, from a training that diverged, also gives 1
        return 1.0
    hottest = np.log(HOTTEST)
    return HOTTEST if too_high(hottest) > 0 else float(np.exp(brentq(too_high, 0.0, hottest, xtol=1e-4)))


def cluster_log_probabilities(log_r: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Log probability of each cluster: the log of the sum of its components' responsibilities.

    Parameters
    ----------
    log_r
        (n, K) log responsibilities of the components.
    group
        (K,) cluster of each component, numbered from 0.

    Returns
    -------
    (n, k) log probabilities of the clusters.
    """
    return np.stack([logsumexp(log_r[:, group == c], axis=1) for c in range(group.max(initial=0) + 1)], 1)


def calibrated(log_r: np.ndarray, group: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of components whose sums over clusters are calibrated.

    The temperature acts on the clusters, so each cell keeps its likeliest cluster. Components keep their shares inside
    a cluster, so the probabilities of a coarser or finer cut of the tree are sums of these.

    Parameters
    ----------
    log_r
        (n, K) log responsibilities of the components.
    group
        (K,) cluster of each component, numbered from 0.
    temperature
        Temperature of the clusters, from `temperature`; 1 changes nothing.

    Returns
    -------
    (n, K) float64 probabilities; rows sum to 1.
    """
    log_r = log_r.astype(np.float64)
    log_p = cluster_log_probabilities(log_r, group)
    inside = np.exp(log_r - np.maximum(log_p[:, group], -1e300))  # share of a component in its cluster
    return softmax(log_p / temperature, axis=1)[:, group] * inside


def share_right(first: np.ndarray, second: np.ndarray) -> float:
    """Share of correct assignments, estimated from two independent assignments.

    Two assignments that are right with probability p, and otherwise differ, agree with probability p^2.

    Parameters
    ----------
    first, second
        (n,) cluster of each cell.

    Returns
    -------
    The root of the share of cells on which both agree, in [0, 1].
    """
    return float((first == second).mean() ** 0.5)
