"""Cells unlike a reference: local outlier factors, and p-values against held-out cells of the same depth."""

import numpy as np
import torch
from torch import Tensor

from mixvi.cluster.graph import N_NEIGHBORS


def neighbor_distances(view: Tensor, reference: Tensor, skip: int = 0) -> tuple[Tensor, Tensor]:
    """Mean distance (n,) to the nearest 15 reference cells, and their row numbers (n, 15).

    Parameters
    ----------
    view
        (n, d) coordinates of the cells.
    reference
        (m, d) those of the reference. If there are fewer than 15, all of them are neighbours.
    skip
        Number of nearest cells that do not count: 1 where the cells are the reference, for the cell itself.
    """
    k = min(N_NEIGHBORS + skip, len(reference))
    distance, near = torch.cdist(view, reference).topk(k, largest=False)
    return distance[:, skip:].mean(1), near[:, skip:]


def local_outlier_factor(view: Tensor, reference: Tensor, spacing: Tensor) -> Tensor:
    """Log ratio (n,) of a cell's distance to its reference neighbours and of their distance to their own neighbours.

    Parameters
    ----------
    view
        (n, d) coordinates of the cells.
    reference
        (m, d) coordinates of reference cells.
    spacing
        (m,) distance of each reference cell to its own neighbours.

    References
    ----------
    Breunig, Kriegel, Ng and Sander 2000, LOF: identifying density-based local outliers. Without its reachability
    distance, as in Schubert, Zimek and Kriegel 2014, Local outlier detection reconsidered.
    """
    distance, near = neighbor_distances(view, reference)
    floor = torch.finfo(distance.dtype).tiny
    return ((distance + floor) / (spacing[near].mean(1) + floor)).log()


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
