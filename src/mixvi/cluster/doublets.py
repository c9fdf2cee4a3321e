"""Doublets: droplets with two cells, whose counts are the sum of two profiles."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.evidence import Evidence, Gain, Group
from mixvi.cluster.graph import sample

CLEAR = 10.0  # nats by which the sum of two clusters must explain a cell better than any single cluster


class Doublet(NamedTuple):
    """The two clusters whose sum is most like a third one."""

    parents: tuple[int, int]
    gain: Gain  # of the cluster's own profile over the sum of both, in nats a cell, on held-out counts
    is_larger: bool  # whether the median library size of the cluster is at least that of both parents


def doublets(evidence: Evidence, groups: list[Group], library: np.ndarray) -> list[Doublet | None]:
    """For each group, the pair of other groups whose sum explains its counts best.

    A droplet with two cells has the sum of their counts. So the profile of such cells is the mean of two profiles,
    weighted by library size, and their library is larger than that of either parent.

    Parameters
    ----------
    evidence
        Evidence from the same cells.
    groups
        K groups.
    library
        (K,) median library size of each group.

    Returns
    -------
    One entry for each group; ``None`` if there are fewer than three groups, or if most of its cells are in strata where
    other groups have no cells.
    """
    if len(groups) < 3:
        return [None] * len(groups)
    profiles = np.stack([evidence.profile(group.seen) * depth for group, depth in zip(groups, library, strict=True)])
    size = np.stack([evidence.member @ group.size for group in groups])  # (K, s)
    pairs = list(combinations(range(len(groups)), 2))
    found: list[Doublet | None] = []
    for k, group in enumerate(groups):
        own, best = np.log(evidence.profile(group.seen)), (np.inf, (0, 0))
        by_stratum = evidence.member @ group.seen
        for pair in pairs:
            shared = (size[pair[0]] > 0) & (size[pair[1]] > 0) & (size[k] > 0)
            if k not in pair and size[k][shared].sum() > group.n_cells / 2:
                seen = by_stratum[shared]
                lost = (seen * (own - np.log(_sum(profiles, pair)))[shared]).sum() / max(seen.sum(), 1)
                best = min(best, (lost, pair))
        if np.isinf(best[0]):
            found.append(None)
            continue
        a, b = best[1]
        shared = ((size[a] > 0) & (size[b] > 0))[evidence.stratum_of]
        gain = evidence.over(_within(group, shared), _sum(profiles, (a, b)))
        found.append(Doublet((a, b), gain, bool(library[k] >= max(library[a], library[b]))))
    return found


def doublet_share(
    evidence: Evidence, counts: csr_matrix, part: np.ndarray, library: np.ndarray, seed: int = 0
) -> float:
    """Share of cells that are doublets of two clusters, estimated from expression and library size.

    A cell counts if it meets two conditions. The sum of two clusters explains its counts better than any single
    cluster, by 10 nats. Its library is larger than the sum of both median libraries, as in half of the doublets. A
    singlet between two clusters, such as one in transition, can be so large by chance. The number of these singlets is
    estimated from the libraries of their own cluster, and subtracted. Doublets of one cluster with itself are not
    found.

    Parameters
    ----------
    evidence
        Evidence from the same cells.
    counts
        (n, g) counts of the cells.
    part
        (n,) cluster of each cell, numbered from 0; -1 for cells in none.
    library
        (K,) median library size of each cluster.
    seed
        Seed of the sample of 10,000 cells, if there are more.

    Returns
    -------
    The share, at least 0; it tends to be too low. 0 if there are fewer than two groups.
    """
    if len(library) < 2:
        return 0.0
    rows = np.flatnonzero(part >= 0)
    rows = rows[sample(len(rows), seed)]
    total = np.asarray(counts.sum(1), dtype=float).ravel()
    across = Evidence(evidence.halves, evidence.overdispersion)  # one stratum
    profiles = np.concatenate([
        across.profile(across.group(np.flatnonzero(part == k)).seen) for k in range(len(library))
    ])  # fmt: skip
    pairs = np.array(list(combinations(range(len(library)), 2)))
    sums = library[pairs[:, 0], None] * profiles[pairs[:, 0]] + library[pairs[:, 1], None] * profiles[pairs[:, 1]]
    sums /= sums.sum(1, keepdims=True)
    single, double = (np.empty((len(rows), len(p))) for p in (profiles, sums))
    for block, weight in enumerate(across.weight(across.all.seen)):
        some = across.block[rows] == block
        for found, p in ((single, profiles), (double, sums)):
            found[some] = counts[rows[some]] @ (weight * np.log(p)).T - np.outer(total[rows[some]], p @ weight)
    needed = library[pairs].sum(1)[double.argmax(1)]
    between = double.max(1) - single.max(1) > CLEAR
    by_chance = 0.0
    for k in np.unique(part[rows]):
        own = np.sort(total[part == k])
        at = np.searchsorted(own, needed[between & (part[rows] == k)], "right")
        by_chance += (1 - at / len(own)).sum()
    n_large = (between & (total[rows] > needed)).sum()
    return float(max(2 * (n_large - by_chance) / len(rows), 0.0))


def _sum(profiles: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Profile (s, g) of the sum of two cells; rows sum to 1."""
    both = profiles[pair[0]] + profiles[pair[1]]
    return both / both.sum(-1, keepdims=True)


def _within(group: Group, blocks: np.ndarray) -> Group:
    """The cells of a group in some of the blocks (b,)."""
    cells = blocks[group.block].astype(bool)
    return Group(group.seen * blocks[:, None], group.size * blocks, group.held_out[cells], group.block[cells])
