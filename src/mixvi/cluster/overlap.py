"""How much two groups of cells overlap: cells between both mean profiles, and cells that fit the other one better."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from mixvi.cluster.evidence import Evidence, Group
from mixvi.cluster.graph import sample

GRID = np.linspace(-1, 2, 61)  # positions along the line through two profiles, one at 0 and the other at 1
CYCLES = 30  # of accelerated EM, to estimate the distribution over this grid; more fit noise where cells are few


class Overlap(NamedTuple):
    """Where the cells of two groups are, along the line through both profiles."""

    between: float  # intermediate cells per cell of the smaller group: near 0 at a gap, 1/2 or more for an even line
    confusion: float  # share of cells that fit the other profile better, if both groups were of one size


def overlap(evidence: Evidence, a: Group, b: Group, seed: int = 0) -> Overlap:
    """How many cells are between two profiles, and how many fit the wrong one better.

    The position of a cell is the exponent x of p_a^(1 - x) p_b^x. Non-parametric maximum likelihood estimates the
    distribution of positions without the spread that counting noise adds. Intermediate is 1/4 < x < 3/4. At a
    worth of w nats, noise moves a cell from x beyond 1/2 with probability Phi(-|x - 1/2| sqrt(2 w)).

    Parameters
    ----------
    evidence
        Evidence from the same cells.
    a, b
        The groups to compare.
    seed
        Seed of the samples of 10,000 cells of a group, if there are more.
    """
    weight = evidence.weight(a.seen + b.seen)
    p_a, p_b = evidence.profile(a.seen, weight), evidence.profile(b.seen, weight)
    way, likelihoods, cells = np.log(p_b / p_a), [], []
    slope = weight * way[evidence.stratum_of]
    rate = np.stack([(weight * (p_a * np.exp(x * way))[evidence.stratum_of]).sum(1) for x in GRID], 1)  # (b, grid)
    for group in (a, b):
        log_p = np.outer(group.scores(slope), GRID) - group.totals[:, None] * rate[group.block]
        log_p = log_p[sample(len(log_p), seed)]
        likelihoods.append(np.exp(log_p - log_p.max(1, keepdims=True)))
        cells.append(np.full(len(log_p), group.n_cells / len(log_p)))
    share = mixture_shares(np.concatenate(likelihoods), np.concatenate(cells))
    between = share[(GRID > 0.25) & (GRID < 0.75)].sum() * (a.n_cells + b.n_cells) / min(a.n_cells, b.n_cells)
    wrong = norm.sf(np.abs(GRID - 0.5) * max(2 * evidence.gain(a, b).worth, 0) ** 0.5)
    middle = np.isclose(GRID, 0.5)  # half of it is on each side
    sides = [share * np.where(middle, 0.5, side) for side in (GRID < 0.5, GRID > 0.5)]
    confusion = sum(side @ wrong / max(side.sum(), 1e-300) for side in sides) / 2
    return Overlap(float(between), float(confusion))


def mixture_shares(p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shares of the components of a mixture by maximum likelihood: EM, accelerated by SQUAREM (Varadhan 2008).

    Parameters
    ----------
    p
        (n, k) likelihood of each value under each component, up to a factor for each value.
    weight
        (n,) weight of each value.

    Returns
    -------
    (k,) shares; they sum to 1.
    """
    share, weight = np.full(p.shape[1], 1 / p.shape[1]), weight / weight.sum()
    for _ in range(CYCLES):
        first = share * ((weight / (p @ share)) @ p)
        second = first * ((weight / (p @ first)) @ p)
        step, bend = first - share, second - 2 * first + share
        length = max(np.linalg.norm(step) / max(np.linalg.norm(bend), 1e-300), 1.0)  # 1 is plain EM
        share = np.maximum(share + 2 * length * step + length**2 * bend, 1e-12)
        share *= (weight / (p @ share)) @ p
        share /= share.sum()
    return share
