"""Prediction sets with a promised coverage, by split conformal prediction."""

import numpy as np


def thresholds(probabilities: np.ndarray, label: np.ndarray, coverage: float) -> np.ndarray:
    """The least probability at which a class belongs to the prediction set.

    Each class has its own threshold if it has enough cells for this coverage. Other classes share one.

    Parameters
    ----------
    probabilities
        (m, k) probabilities of the classes, of held-out cells.
    label
        (m,) class of each of these cells.
    coverage
        Share of cells whose class is to be in their set, above 0 and below 1.

    Returns
    -------
    (k,) thresholds. If all cells together are too few, they are 0, so every class is in every set.

    References
    ----------
    Sadinle, Lei and Wasserman 2019, Least ambiguous set-valued classifiers with bounded error levels.
    """
    right = probabilities[np.arange(len(label)), label]
    shared = np.nan_to_num(_lower_quantile(right, coverage))
    found = [_lower_quantile(right[label == k], coverage) for k in range(probabilities.shape[1])]
    return np.array([shared if np.isnan(value) else value for value in found])


def likeliest(probabilities: np.ndarray, coverage: float) -> np.ndarray:
    """The fewest classes of each cell whose probabilities sum up to at least the coverage.

    Parameters
    ----------
    probabilities
        (n, k) probabilities; rows sum to 1.
    coverage
        Above 0 and below 1.

    Returns
    -------
    (n, k) whether a class is among them.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    p = np.take_along_axis(probabilities, order, 1)
    within = np.empty(p.shape, dtype=bool)
    np.put_along_axis(within, order, p.cumsum(1) - p < coverage, 1)
    return within


def _lower_quantile(right: np.ndarray, coverage: float) -> float:
    """The value that a further cell exceeds or reaches with this probability; nan if there are too few cells."""
    rank = int((len(right) + 1) * (1 - coverage) + 1e-9)  # 1 is the lowest value
    return np.sort(right)[rank - 1] if rank else np.nan
