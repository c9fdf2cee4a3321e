"""Cells unlike a reference: local outlier factors, and p-values against held-out cells of the same depth."""

import numpy as np
import torch
from torch import Tensor

from mixvi.cluster.graph import N_NEIGHBORS


def neighbor_distances(
    view: Tensor, reference: Tensor, own: np.ndarray | None = None, n_neighbors: int = N_NEIGHBORS
) -> tuple[Tensor, Tensor]:
    """Mean distance (n,) to the nearest reference cells, and their row numbers (n, k).

    Parameters
    ----------
    view
        (n, d) coordinates of the cells.
    reference
        (m, d) those of the reference.
    own
        (n,) row number of one reference cell for each cell, which is not its neighbour: the cell itself. ``None`` is
        none.
    n_neighbors
        Number of neighbours k. If there are fewer, all of them are neighbours.
    """
    distances, n_others = torch.cdist(view, reference), len(reference)
    if own is not None:
        distances[np.arange(len(own)), own] = torch.inf
        n_others -= 1
    distance, near = distances.topk(min(n_neighbors, n_others), largest=False)
    return distance.mean(1), near


def local_outlier_factor(
    view: Tensor, reference: Tensor, spacing: Tensor, query_spacing: Tensor | None = None
) -> Tensor:
    """Log ratio (n,) of a cell's distance to its reference neighbours, and of the spacing of cells around it.

    The spacing is the geometric mean of two: the spacing of these neighbours in the reference, and the spacing of the
    query around the cell. The second shows a new cell type that is near a known one, but lies closer together.

    Parameters
    ----------
    view
        (n, d) coordinates of the cells.
    reference
        (m, d) coordinates of reference cells.
    spacing
        (m,) distance of each reference cell to its own neighbours.
    query_spacing
        (n,) distance of each cell to its neighbours in the query; ``None`` takes the spacing of the reference alone.

    References
    ----------
    Breunig, Kriegel, Ng and Sander 2000, LOF: identifying density-based local outliers. Without its reachability
    distance, as in Schubert, Zimek and Kriegel 2014, Local outlier detection reconsidered. Both take one spacing.
    """
    distance, near = neighbor_distances(view, reference)
    floor = torch.finfo(distance.dtype).tiny
    around = (spacing[near].mean(1) + floor).log()
    if query_spacing is not None:
        around = (around + (query_spacing + floor).log()) / 2
    return (distance + floor).log() - around


def standardise(
    score: np.ndarray, depth: np.ndarray, reference_score: np.ndarray, reference_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of new cells and of reference cells without the influence of depth, in mean absolute deviations.

    Mean and spread of the score are linear functions of the depth, by least squares over the reference cells.

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
    (n,) and (m,) standardised scores.
    """
    center = reference_depth.mean()
    design, other = (np.stack([np.ones(len(x)), x - center], 1) for x in (reference_depth, depth))
    mean = np.linalg.lstsq(design, reference_score, rcond=None)[0]
    rest = reference_score - design @ mean
    spread = np.linalg.lstsq(design, abs(rest), rcond=None)[0]
    least = abs(rest).mean() / 4 + 1e-12  # at depths beyond the reference, the line may fall below 0
    return (score - other @ mean) / np.maximum(other @ spread, least), rest / np.maximum(design @ spread, least)


def conformal_p(score: np.ndarray, reference_score: np.ndarray) -> np.ndarray:
    """Probability that a reference cell has a score at least as high.

    Parameters
    ----------
    score
        (n,) scores.
    reference_score
        (m,) scores of reference cells that were held out.

    Returns
    -------
    (n,) p-values of at least 1 / (m + 1). Those of reference cells are uniform.

    References
    ----------
    Bates, Candes, Lei, Romano and Sesia 2023, Testing for outliers with conformal p-values.
    """
    n_higher = len(reference_score) - np.searchsorted(np.sort(reference_score), score, side="left")
    return (n_higher + 1) / (len(reference_score) + 1)
