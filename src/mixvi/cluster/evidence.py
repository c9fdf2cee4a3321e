"""Evidence that two groups of cells differ: log-likelihood of held-out counts under two mean profiles and under one.

The model of a group is one mean profile: the expected share of each gene in a cell's counts. Counts are weighted by
their negative binomial variance (quasi-likelihood), so a gene that varies much among similar cells has less weight. A
count of a cell with a large library also has less weight. With strata, such as batches, a group has one profile in each
stratum, and only differences within strata count.

Cells of one stratum whose library sizes are between the same two powers of two form a block. They share their weights.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.special import xlogy
from scipy.stats import t

from mixvi.cluster.count_splitting import Halves

SPLIT_LEVEL = 0.05  # probability that a tree of pure noise has any significant split
PSEUDO = 1.0  # shape of the gamma prior of a gene's share: the weight of one count. Its mean is the share in all cells
ENOUGH_CELLS = 10  # cells of both groups in the same strata; with fewer, a t test has little power


class Group(NamedTuple):
    """Cells of one group, by block."""

    seen: np.ndarray  # (b, g) pooled seen counts, in which clusters are found
    size: np.ndarray  # (b,) cells
    held_out: csr_matrix  # (n, g) held-out counts of each cell
    block: np.ndarray  # (n,) block of each cell

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.block)

    @property
    def totals(self) -> np.ndarray:
        """Held-out counts of each cell (n,), over all genes."""
        return np.asarray(self.held_out.sum(1), dtype=float).ravel()

    def join(self, other: "Group") -> "Group":
        """Both groups as one."""
        held_out = vstack([self.held_out, other.held_out], format="csr")
        return Group(self.seen + other.seen, self.size + other.size, held_out, np.r_[self.block, other.block])

    def scores(self, slope: np.ndarray) -> np.ndarray:
        """Sum over genes of each cell's held-out counts times a factor of the cell's block and the gene.

        Parameters
        ----------
        slope
            (b, g) factors.

        Returns
        -------
        (n,) sums.
        """
        cell = np.repeat(np.arange(self.n_cells), np.diff(self.held_out.indptr))
        terms = self.held_out.data * slope[self.block[cell], self.held_out.indices]
        return np.bincount(cell, terms, minlength=self.n_cells)


class Gain(NamedTuple):
    """Gain in held-out log-likelihood of a profile for each group over a joint profile."""

    worth: float  # nats per cell, scaled as in `Evidence.gain`
    error: float  # standard error of the worth


def lower_bound(
    worth: np.ndarray | float, error: np.ndarray | float, n_cells: np.ndarray | int, n_tests: int
) -> np.ndarray:
    """Lower confidence bound of gains, by a t test with Bonferroni's correction.

    Parameters
    ----------
    worth, error
        (m,) or scalar gains and their standard errors, in nats.
    n_cells
        (m,) or scalar number of cells of the smaller group; the degrees of freedom are one less.
    n_tests
        Number of tests to correct for.

    Returns
    -------
    (m,) or scalar lower bounds, in nats; ``-inf`` for a group of one cell.
    """
    bound = worth - t.isf(SPLIT_LEVEL / max(n_tests, 1), np.maximum(n_cells - 1, 1)) * error
    return np.where(n_cells > 1, bound, -np.inf)


class Evidence:
    """Compares groups of cells.

    Parameters
    ----------
    halves
        (n, g) each: counts in two independent parts.
    overdispersion
        (g,) 1 / theta of each gene.
    stratum
        (n,) stratum of each cell, numbered from 0; ``None`` is one stratum.
    """

    def __init__(self, halves: Halves, overdispersion: np.ndarray, stratum: np.ndarray | None = None):
        n, n_genes = halves.seen.shape
        self.halves, self.overdispersion = halves, overdispersion
        self.stratum = np.zeros(n, int) if stratum is None else stratum
        library = np.asarray(halves.seen.sum(1), dtype=float).ravel() / (1 - halves.share)
        depth = np.log2(np.maximum(library, 1)).astype(int)
        blocks, self.block = np.unique(np.stack([self.stratum, depth], 1), axis=0, return_inverse=True)
        self.stratum_of = blocks[:, 0]  # (b,) stratum of each block
        shape = (self.stratum.max(initial=0) + 1, len(blocks))
        self.member = csr_matrix((np.ones(len(blocks)), (self.stratum_of, np.arange(len(blocks)))), shape)  # (s, b)
        self.library = np.bincount(self.block, library) / np.bincount(self.block)  # (b,) mean library size
        self.all = self.group(np.arange(n))
        counts, exposure = self.pooled(self.all.seen, self.weight(self.all.seen))
        base = (counts + 1e-9) / (exposure + 1e-9 * n_genes)
        self.base = base / base.sum(1, keepdims=True)  # (s, g) mean profile of all cells

    def group(self, cells: np.ndarray) -> Group:
        """A group of the cells with the given row numbers (m,)."""
        block, n_blocks = self.block[cells], len(self.stratum_of)
        member = csr_matrix((np.ones(len(cells)), (block, np.arange(len(cells)))), (n_blocks, len(cells)))
        seen = (member @ self.halves.seen[cells]).toarray()
        return Group(seen, np.bincount(block, minlength=n_blocks), self.halves.held_out[cells].tocsr(), block)

    def weight(self, seen: np.ndarray) -> np.ndarray:
        """Poisson variance of each gene, divided by its negative binomial variance.

        Parameters
        ----------
        seen
            (b, g) pooled seen counts, whose profile gives the means.

        Returns
        -------
        (b, g) weights in (0, 1], at the mean library size of each block.
        """
        by_stratum = self.member @ seen
        share = by_stratum / np.maximum(by_stratum.sum(1, keepdims=True), 1)
        return 1 / (1 + self.library[:, None] * (self.overdispersion * share)[self.stratum_of])

    def pooled(self, seen: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted counts and weighted totals (s, g) of each stratum. Their ratio estimates the profile.

        Parameters
        ----------
        seen
            (b, g) pooled seen counts.
        weight
            (b, g) weights of the counts.
        """
        return self.member @ (weight * seen), self.member @ (weight * seen.sum(1, keepdims=True))

    def profile(self, seen: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        """Mean profile (s, g) of pooled counts; rows sum to 1.

        Parameters
        ----------
        seen
            (b, g) pooled seen counts.
        weight
            (b, g) weights of the counts; ``None`` is `weight` of the same counts.
        """
        counts, exposure = self.pooled(seen, self.weight(seen) if weight is None else weight)
        share = (counts + PSEUDO) / (exposure + PSEUDO / self.base)
        return share / share.sum(1, keepdims=True)

    def comparable(self, a: Group, b: Group) -> bool:
        """Whether enough cells of both groups are in the same strata.

        Parameters
        ----------
        a, b
            The groups to compare.

        Returns
        -------
        Whether at least 10 cells of one have a partner of the other in their stratum, or all cells of one group do.
        """
        return np.minimum(self.member @ a.size, self.member @ b.size).sum() >= min(a.n_cells, b.n_cells, ENOUGH_CELLS)

    def loss(self, a: Group, b: Group) -> float:
        """Log-likelihood of the seen counts that is lost when both groups share one profile.

        Groups that are not `comparable` within strata are compared across them.

        Parameters
        ----------
        a, b
            The groups to compare.

        Returns
        -------
        The loss, summed over cells, in nats.
        """
        weight = self.weight(a.seen + b.seen)
        counts, exposure = (np.stack(pair) for pair in zip(*(self.pooled(x.seen, weight) for x in (a, b)), strict=True))
        if not self.comparable(a, b):
            counts, exposure = counts.sum(1, keepdims=True), exposure.sum(1, keepdims=True)
        shared = counts.sum(0) / np.maximum(exposure.sum(0), 1e-300)
        return float(xlogy(counts, counts / np.maximum(exposure * shared, 1e-300)).sum())

    def gain(self, a: Group, b: Group) -> Gain:
        """Gain in held-out log-likelihood of a profile for each group over a joint profile.

        The gain of all cells is divided by n_a n_b / (n_a + n_b), summed over strata. For small differences, the result
        is the Kullback-Leibler divergence of a cell's counts between the two profiles, for groups of any sizes. So it
        is the mean log-likelihood ratio of a cell's counts, between the profile of its own group and the other one.
        For large differences, a rare group with genes of its own has a larger gain than one that only lacks genes.

        Parameters
        ----------
        a, b
            The groups to compare.

        Returns
        -------
        Worth and standard error, in nats per cell. The worth is below 0 if the groups are alike.
        """
        both = a.seen + b.seen
        weight = self.weight(both)
        joint = self.profile(both, weight)
        gains = [self._against(group, joint, weight) for group in (a, b)]
        n_a, n_b = self.member @ a.size, self.member @ b.size
        n_pairs = max((n_a * n_b / np.maximum(n_a + n_b, 1)).sum(), 0.5)
        variance = sum(values.var(ddof=1) * len(values) for values in gains if len(values) > 1)
        return Gain(sum(values.sum() for values in gains) / n_pairs, variance**0.5 / n_pairs)

    def over(self, group: Group, profile: np.ndarray) -> Gain:
        """Gain in held-out log-likelihood of a group's own profile over another profile.

        Parameters
        ----------
        group
            The group.
        profile
            (s, g) the other profile, in each stratum; rows sum to 1.

        Returns
        -------
        Mean over cells and its standard error, in nats a cell. Below 0 if the other profile fits as well.
        """
        gains = self._against(group, profile, self.weight(group.seen))
        return Gain(float(gains.mean()), float(gains.std() / max(len(gains), 1) ** 0.5))

    def information(self, groups: list[Group]) -> float:
        """Held-out gain of the groups' profiles over that of all cells, in nats over the number of all cells."""
        weight = self.weight(self.all.seen)
        common = self.profile(self.all.seen, weight)
        return sum(self._against(group, common, weight).sum() for group in groups) / self.all.n_cells

    def _against(self, group: Group, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Gain (n,) of each cell, for its whole library, by the group's profile in place of another (s, g)."""
        own = self.profile(group.seen, weight)
        slope = weight * np.log(own / other)[self.stratum_of]
        level = (weight * (own - other)[self.stratum_of]).sum(1)
        return (group.scores(slope) - level[group.block] * group.totals) / self.halves.share
