"""Clusters whose cells look like pairs of cells of two other clusters."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from mixvi.cluster.evidence import Evidence, Gain, Group


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
    One entry for each group; ``None`` if there are fewer than three groups.
    """
    if len(groups) < 3:
        return [None] * len(groups)
    profiles = np.stack([evidence.profile(group.seen) * size for group, size in zip(groups, library, strict=True)])
    pairs = list(combinations(range(len(groups)), 2))
    found: list[Doublet | None] = []
    for k, group in enumerate(groups):
        others = [pair for pair in pairs if k not in pair]
        fit = [(group.seen * np.log(_sum(profiles, pair))).sum() for pair in others]
        a, b = others[int(np.argmax(fit))]
        gain = evidence.over(group, _sum(profiles, (a, b)))
        found.append(Doublet((a, b), gain, bool(library[k] >= max(library[a], library[b]))))
    return found


def _sum(profiles: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Profile (s, g) of the sum of two cells; rows sum to 1."""
    both = profiles[pair[0]] + profiles[pair[1]]
    return both / both.sum(-1, keepdims=True)
