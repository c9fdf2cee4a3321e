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
        Seed of the sample of 10,000 cells, if there are more.
    """
    both = a.join(b)
    weight = evidence.weight(both.seen)
    p_a, p_b = evidence.profile(a.seen, weight), evidence.profile(b.seen, weight)
    way, by_block = np.log(p_b / p_a), []
    for w, s, held_out, totals in zip(weight, evidence.stratum_of, both.held_out, both.totals, strict=True):
        level = [(w * p_a[s] * np.exp(x * way[s])).sum() for x in GRID]
        by_block.append(np.outer(held_out @ (w * way[s]), GRID) - np.outer(totals, level))
    log_p = np.concatenate(by_block)
    log_p = log_p[sample(len(log_p), seed)]
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    share = mixture_shares(p)
    between = share[(GRID > 0.25) & (GRID < 0.75)].sum() * both.n_cells / min(a.n_cells, b.n_cells)
    wrong = share * norm.sf(np.abs(GRID - 0.5) * max(2 * evidence.gain(a, b).worth, 0) ** 0.5)
    sides = GRID < 0.5, GRID >= 0.5
    confusion = sum(wrong[side].sum() / max(share[side].sum(), 1e-300) for side in sides) / 2
    return Overlap(float(between), float(confusion))


def mixture_shares(p: np.ndarray) -> np.ndarray:
    """Shares of the components of a mixture by maximum likelihood: EM, accelerated by SQUAREM (Varadhan 2008).

    Parameters
    ----------
    p
        (n, k) likelihood of each value under each component, up to a factor for each value.

    Returns
    -------
    (k,) shares; they sum to 1.
    """
    share = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(CYCLES):
        first = share * (p / (p @ share)[:, None]).mean(0)
        second = first * (p / (p @ first)[:, None]).mean(0)
        step, bend = first - share, second - 2 * first + share
        length = max(np.linalg.norm(step) / max(np.linalg.norm(bend), 1e-300), 1.0)  # 1 is plain EM
        share = np.maximum(share + 2 * length * step + length**2 * bend, 1e-12)
        share *= (p / (p @ share)[:, None]).mean(0)
        share /= share.sum()
    return share
