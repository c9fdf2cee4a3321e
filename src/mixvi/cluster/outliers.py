"""Cells like nothing seen: p-values against held-out cells of the same depth (conformal anomaly detection)."""

import numpy as np


def outlier_p(
    score: np.ndarray, depth: np.ndarray, reference_score: np.ndarray, reference_depth: np.ndarray
) -> np.ndarray:
    """Probability that a reference cell of the same depth has a score at least as high.

    Mean and spread of the score are linear functions of the depth, by least squares. Scores are compared after that.

    Parameters
    ----------
    score
        (n,) higher for cells that are less like the reference.
    depth
        (n,) log library size; any constant if there is none.
    reference_score, reference_depth
        (m,) each: the same of reference cells that were held out.

    Returns
    -------
    (n,) p-values of at least 1 / (m + 1). Those of reference cells are uniform.

    References
    ----------
    Bates, Candes, Lei, Romano and Sesia 2023, Testing for outliers with conformal p-values.
    """
    center = reference_depth.mean()
    design, other = (np.stack([np.ones(len(x)), x - center], 1) for x in (reference_depth, depth))
    mean = np.linalg.lstsq(design, reference_score, rcond=None)[0]
    rest = reference_score - design @ mean
    spread = np.linalg.lstsq(design, abs(rest), rcond=None)[0]
    least = abs(rest).mean() / 4 + 1e-12  # at depths beyond the reference, the line may fall below 0
    known = np.sort(rest / np.maximum(design @ spread, least))
    new = (score - other @ mean) / np.maximum(other @ spread, least)
    n_higher = len(known) - np.searchsorted(known, new, side="left")
    return (n_higher + 1) / (len(known) + 1)
