"""Evidence that two groups of cells differ: log-likelihood of held-out counts under two mean profiles and under one.

The model of a group is one mean profile, the expected share of each gene in a cell's counts. Counts are weighed by
their negative binomial variance (quasi-likelihood), so a gene that varies much between like cells says less. With
strata, such as batches, each group has one profile in each stratum, and only differences within strata count.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.special import xlogy
from scipy.stats import t

from mixvi.cluster.count_splitting import Halves
from mixvi.cluster.graph import sample

LEVEL = 0.05  # chance that any split of pure noise in a tree is called real
GRID = np.linspace(-1, 2, 61)  # positions along the line through two profiles, which are at 0 and 1
EM_STEPS = 200  # of the distribution over this grid
ENOUGH = 10  # cells of both groups in the same strata: with fewer, a t test says little


class Group(NamedTuple):
    """Cells of one group, by stratum."""

    seen: np.ndarray  # (s, g) pooled counts of the part that finds clusters
    size: np.ndarray  # (s,) cells
    held_out: list[csr_matrix]  # s matrices, the other part of each cell's counts
    totals: list[np.ndarray]  # their rows' sums

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.size.sum())

    def join(self, other: "Group") -> "Group":
        """Both groups as one."""
        held_out = [vstack(pair, format="csr") for pair in zip(self.held_out, other.held_out, strict=True)]
        totals = [np.concatenate(pair) for pair in zip(self.totals, other.totals, strict=True)]
        return Group(self.seen + other.seen, self.size + other.size, held_out, totals)


class Gain(NamedTuple):
    """What two profiles in place of one are worth on the held-out counts."""

    worth: float  # nats at full depth by which a cell tells its group from the other
    error: float  # its standard error


def lower_bound(worth: np.ndarray, error: np.ndarray, n_cells: np.ndarray, n_tests: int) -> np.ndarray:
    """Lower confidence bound of gains, for smaller groups of so many cells: a t test with Bonferroni's correction."""
    bound = worth - t.isf(LEVEL / max(n_tests, 1), np.maximum(n_cells - 1, 1)) * error
    return np.where(n_cells > 1, bound, -np.inf)


class Evidence:
    """Compares groups of cells.

    Parameters
    ----------
    halves
        (n, g) counts in two independent parts.
    overdispersion
        (g,) 1 / theta of each gene.
    stratum
        (n,) stratum of each cell, numbered from 0; ``None`` is one stratum.
    """

    def __init__(self, halves: Halves, overdispersion: np.ndarray, stratum: np.ndarray | None = None):
        n, n_genes = halves.seen.shape
        self.halves, self.overdispersion = halves, overdispersion
        self.stratum = np.zeros(n, int) if stratum is None else stratum
        self.n_strata = int(self.stratum.max(initial=0)) + 1
        self.all = self.group(np.arange(n))
        self.prior = self.all.seen.any(0).sum() / 2  # pseudo-counts of Jeffreys' prior, half a count a gene that occurs
        total = self.all.seen.sum(-1, keepdims=True)
        self.base = (self.all.seen + 1e-9) / (total + 1e-9 * n_genes)  # (s, g) where the prior puts them

    def group(self, cells: np.ndarray) -> Group:
        """The cells with the given row numbers."""
        by_stratum = [cells[self.stratum[cells] == s] for s in range(self.n_strata)]
        seen = np.stack([np.asarray(self.halves.seen[rows].sum(0), dtype=float).ravel() for rows in by_stratum])
        size = np.array([len(rows) for rows in by_stratum])
        held_out = [self.halves.held_out[rows] for rows in by_stratum]
        return Group(seen, size, held_out, [np.asarray(part.sum(1), dtype=float).ravel() for part in held_out])

    def profile(self, seen: np.ndarray) -> np.ndarray:
        """Mean profile (s, g) of pooled counts; rows sum to 1."""
        return (seen + self.prior * self.base) / (seen.sum(-1, keepdims=True) + self.prior)

    def weight(self, seen: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Poisson variance of each gene over its negative binomial one, at the mean count of so many cells, (s, g)."""
        mean = seen / (np.maximum(size[:, None], 1) * (1 - self.halves.share))
        return 1 / (1 + self.overdispersion * mean)

    def comparable(self, a: Group, b: Group) -> bool:
        """Whether so many cells of both are in the same strata that these can be compared."""
        return np.minimum(a.size, b.size).sum() >= min(a.n_cells, b.n_cells, ENOUGH)

    def loss(self, a: Group, b: Group) -> float:
        """Log-likelihood of the counts that found the groups, in nats, that is lost when both share one profile.

        Groups that cannot be compared within strata are compared across them.
        """
        if not self.comparable(a, b):
            a, b = (Group(group.seen.sum(0)[None], group.size.sum()[None], [], []) for group in (a, b))
        both = a.seen + b.seen
        shared = both / np.maximum(both.sum(-1, keepdims=True), 1)
        lost = 0.0
        for group in (a, b):
            expected = np.maximum(shared * group.seen.sum(-1, keepdims=True), 1e-300)
            lost = lost + xlogy(group.seen, group.seen / expected)
        return float((self.weight(both, a.size + b.size) * lost).sum())

    def gain(self, a: Group, b: Group) -> Gain:
        """Gain of a profile for each group over a joint one, on held-out counts; below 0 where the groups are alike.

        It is divided by n_a n_b / (n_a + n_b), summed over strata. For small differences this is the Kullback-Leibler
        divergence of a cell's counts between the two profiles, whatever the groups' sizes. For large differences, a
        rare group with genes of its own is worth more than one that only lacks genes.
        """
        both = a.seen + b.seen
        joint, weight = self.profile(both), self.weight(both, a.size + b.size)
        gains = [self._against(group, joint, weight) for group in (a, b)]
        n_pairs = max((a.size * b.size / np.maximum(a.size + b.size, 1)).sum(), 0.5)
        variance = sum(values.var(ddof=1) * len(values) for values in gains if len(values) > 1)
        return Gain(sum(values.sum() for values in gains) / n_pairs, variance**0.5 / n_pairs)

    def information(self, groups: list[Group]) -> float:
        """What groups say of an average cell: held-out gain of their profiles over that of all cells, nats a cell."""
        common, weight = self.profile(self.all.seen), self.weight(self.all.seen, self.all.size)
        return sum(self._against(group, common, weight).sum() for group in groups) / self.all.n_cells

    def between(self, a: Group, b: Group, seed: int = 0) -> float:
        """Cells half-way between two profiles, for each cell of the smaller group: near 0 at a gap, 1/2 on a line.

        The place of a cell is the exponent x of p_a^(1 - x) p_b^x. The distribution of places is estimated by
        non-parametric maximum likelihood, which takes out what counting noise adds. Half-way is 1/4 < x < 3/4: on a
        line with evenly spread cells at least half as many cells are there as in the smaller group.
        """
        p_a, p_b = self.profile(a.seen), self.profile(b.seen)
        both = a.join(b)
        weight, way = self.weight(both.seen, both.size), np.log(p_b / p_a)
        log_p = []
        for s, held_out in enumerate(both.held_out):
            level = [(weight[s] * p_a[s] * np.exp(x * way[s])).sum() for x in GRID]
            log_p.append(np.outer(held_out @ (weight[s] * way[s]), GRID) - np.outer(both.totals[s], level))
        log_p = np.concatenate(log_p)
        log_p = log_p[sample(len(log_p), seed)]
        p = np.exp(log_p - log_p.max(1, keepdims=True))
        share = np.full(len(GRID), 1 / len(GRID))
        for _ in range(EM_STEPS):
            share *= (p / (p @ share)[:, None]).mean(0)
        return float(share[(GRID > 0.25) & (GRID < 0.75)].sum() * both.n_cells / min(a.n_cells, b.n_cells))

    def _against(self, group: Group, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Gain (n,) of each held-out cell, at full depth, by the group's own profile in place of another (s, g)."""
        own = self.profile(group.seen)
        slope, level = weight * np.log(own / other), (weight * (own - other)).sum(-1)
        gains = [held @ slope[s] - level[s] * group.totals[s] for s, held in enumerate(group.held_out)]
        return np.concatenate(gains) / self.halves.share
