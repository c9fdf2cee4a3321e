"""How much two groups of cells overlap: cells between both groups, and cells that fit the other one better.

Cells have places along the line through the two groups. The model is that each group is evenly spread around its
centre. The width of this spread follows from the variance of the places, less the variance of counting noise. At a
gap, the width is 0. The two halves of an even line meet in the middle. Noise adds to the cells that are seen in the
middle, so their number is an upper limit for the cells between the groups.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from mixvi.cluster.evidence import Evidence, Group


class Overlap(NamedTuple):
    """Where the cells of two groups are, along the line through both centres."""

    between: float  # intermediate cells per cell of the smaller group: 0 at a gap, 1/2 for an even line
    confusion: float  # share of cells that fit the other group better, if both groups were of one size


def overlap(evidence: Evidence, a: Group, b: Group) -> Overlap:
    """How many cells are between two groups, and how many fit the wrong one better.

    Intermediate cells are in the middle half of the way from one centre to the other.

    Parameters
    ----------
    evidence
        Evidence from the same cells.
    a, b
        The groups to compare.

    Returns
    -------
    Both shares; NaN if all cells of a group lack held-out counts, or a stratum in which both groups have seen counts.
    """
    of, weight = evidence.stratum_of, evidence.weight(a.seen + b.seen)
    p_a, p_b = (evidence.profile(group.seen, weight)[of] for group in (a, b))  # (b, g)
    way = np.log(p_b / p_a)
    slope = weight * way
    start, end = (slope * p_a).sum(1), (slope * p_b).sum(1)  # mean score of a count: the places 0 and 1
    is_shared = (np.minimum(evidence.member @ a.size, evidence.member @ b.size) > 0)[of]  # strata of both groups
    is_shared &= end > start  # no count of a stratum may be in the seen half
    places, centres, variances = [], [], []
    for group, profile, level, inward in ((a, p_a, start, 1), (b, p_b, end, -1)):
        cells = (group.totals > 0) & is_shared[group.block]
        if not cells.any():
            return Overlap(np.nan, np.nan)
        block, totals = group.block[cells], group.totals[cells]
        length = (end - start)[block]
        place = inward * (group.scores(slope)[cells] / totals - start[block]) / length
        variance = ((slope - level[:, None]) ** 2 * profile / evidence.weight(group.seen)).sum(1)  # (b,) of one count
        centre, excess = _centre_and_variance(place, variance[block] / (totals * length**2))
        places.append(place - centre)
        centres.append(centre)
        variances.append(excess)
    distance = max(-sum(centres), 1e-9)
    reach = min(max((3 * max(np.mean(variances), 0)) ** 0.5 / distance, 1e-3), 1.0)  # of an even spread
    n, middle = np.array([a.n_cells, b.n_cells]), np.clip(reach - 1 / 4, 0, 1 / 2) / (2 * reach)
    seen_in_middle = [np.mean((x > distance / 4) & (x < 3 * distance / 4)) for x in places]
    between = min(middle * n.sum(), n @ seen_in_middle) / n.min()
    return Overlap(float(between), confusion(reach, evidence.gain(a, b).worth))


def confusion(reach: float, worth: float) -> float:
    """Share of cells that fit the wrong one of two groups better.

    Noise moves a cell beyond the middle, at distance t, with probability Phi(-t sqrt(2 worth)). The result is its mean
    over an even spread.

    Parameters
    ----------
    reach
        Half the width of each group, above 0, relative to the distance of both centres.
    worth
        Nats per cell by which the groups differ.
    """
    sharpness = (2 * max(worth, 1e-9)) ** 0.5
    t = np.array([1 / 2 - reach, 1 / 2 + reach])
    integral = t * norm.sf(sharpness * t) - norm.pdf(sharpness * t) / sharpness
    return float((integral[1] - integral[0]) / (2 * reach))


def _centre_and_variance(place: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Median of places (n,), and their variance beyond that of noise (n,).

    Cells of another type may lie far out, below the median. So deviations there are winsorized at twice the root mean
    square of the deviations above.
    """
    centre = np.median(place)
    z = (place - centre) / noise**0.5
    inner = z[z > 0]
    z = np.maximum(z, -2 * np.sqrt(np.mean(inner**2))) if len(inner) else z
    return centre, np.average(noise * (z**2 - 1), weights=noise**-2.0)
