"""A tree over clusters. Pairs of clusters join until one cluster is left; each join records the worth of the split.

With counts, there are two stages. In the first, a pair may join if its worth on held-out counts is not significant or
below ``min_worth``. If more than 5 % of its cells fit the other side better, it may join below 5.9 times ``min_worth``.
The pair with the lowest worth joins first. The stage ends when no pair may join, and the nodes
that are left are the default clusters. In the second stage, the pair joins that loses least log-likelihood of the seen
counts.

Without counts, the pair joins that has most edges of the neighbour graph, relative to the number expected by chance.
The default clusters are the nodes that are left when no pair has more edges than expected.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import norm

from mixvi.cluster.evidence import Evidence, Gain, Group, lower_bound
from mixvi.cluster.overlap import Overlap, overlap

CONFUSION = 0.05  # share of cells that may fit the other one of two default clusters better
MIN_WORTH = round(2 * float(norm.isf(CONFUSION)) ** 2, 2)  # 5.41 nats: at a gap, 5 % of cells fit the other side better
EVEN = 1 / (4 * np.pi * CONFUSION**2) / MIN_WORTH  # 5.9 times as many nats are needed for 5 % along an even line
GRADE = 0.25  # intermediate cells per cell of the smaller side; half the value of cells evenly spread along a line


class Tree(NamedTuple):
    """K leaves, and the K - 1 joins that unite them. Join j makes node K + j; nodes below K are the leaves."""

    pairs: np.ndarray  # (K - 1, 2) the two nodes of each join
    cells: np.ndarray  # (K - 1, 2) their numbers of cells
    worth: np.ndarray  # (K - 1,) nats per cell, as in `Evidence.gain`; nan without counts, or if the two sides are in
    # different batches
    error: np.ndarray  # (K - 1,) standard error of the worth
    between: np.ndarray  # (K - 1,) intermediate cells per cell of the smaller side; nan where not supported
    confusion: np.ndarray  # (K - 1,) share of cells that fit the other side better; nan where not supported
    connectivity: np.ndarray  # (K - 1,) number of edges between the sides, relative to that expected by chance
    n_default: int  # number of default clusters
    min_worth: float  # nats by which default clusters must differ; nan where they were not inferred

    @property
    def n_leaves(self) -> int:
        """Number of leaves K."""
        return len(self.pairs) + 1

    @property
    def supported(self) -> np.ndarray:
        """(K - 1,) whether the worth is significantly above 0, by a t test with Bonferroni's correction."""
        return lower_bound(self.worth, self.error, self.cells.min(1, initial=2**60), len(self.pairs)) > 0

    @property
    def kind(self) -> np.ndarray:
        """(K - 1,) ``"gap"``, ``"grade"`` (intermediate cells), ``"noise"`` (not supported), ``""`` (no worth)."""
        kind = np.where(self.between < GRADE, "gap", "grade")
        kind[~self.supported] = "noise"
        kind[np.isnan(self.worth)] = ""
        return kind

    def clear(self, min_worth: float) -> np.ndarray:
        """(K - 1,) whether the two sides may be default clusters.

        Parameters
        ----------
        min_worth
            As in `agglomerate`.
        """
        is_clear = (self.worth >= EVEN * min_worth) | ~(self.confusion > most_confused(min_worth))
        return self.supported & (self.worth >= min_worth) & is_clear

    def leaves(self) -> list[list[int]]:
        """The leaves below each of the 2 K - 1 nodes."""
        below = [[k] for k in range(self.n_leaves)]
        for a, b in self.pairs:
            below.append(below[a] + below[b])
        return below

    def nodes(self, n_clusters: int) -> list[int]:
        """The nodes that are left when the tree is cut into ``n_clusters`` clusters.

        Raises
        ------
        ValueError
            If ``n_clusters`` is below 1 or above the number of leaves.
        """
        if not 1 <= n_clusters <= self.n_leaves:
            raise ValueError(f"n_clusters={n_clusters}; this tree can be cut into 1 to {self.n_leaves} clusters.")
        n_joins = self.n_leaves - n_clusters
        joined = set(self.pairs[:n_joins].ravel().tolist())
        return [node for node in range(self.n_leaves + n_joins) if node not in joined]

    def cut(self, n_clusters: int) -> np.ndarray:
        """(K,) cluster of each leaf, numbered from 0 in the order of `nodes`, when there are ``n_clusters``."""
        group, below = np.empty(self.n_leaves, int), self.leaves()
        for i, node in enumerate(self.nodes(n_clusters)):
            group[below[node]] = i
        return group


def most_confused(min_worth: float) -> float:
    """The largest share of cells that may fit the other one of two default clusters better."""
    return max(CONFUSION, float(norm.sf((min_worth / 2) ** 0.5)))


def agglomerate(
    part: np.ndarray,
    graph: csr_matrix,
    evidence: Evidence | None = None,
    min_worth: float = MIN_WORTH,
    infer: bool = True,
    n_parts: int | None = None,
) -> Tree:
    """Build the tree over the K parts of a partition.

    Parameters
    ----------
    part
        (n,) part of each cell, numbered from 0; -1 for cells in no part.
    graph
        (n, n) neighbour graph.
    evidence
        Evidence from the same cells. ``None`` joins by the graph alone.
    min_worth
        Nats by which any two default clusters must differ. At a gap of w nats, a share Phi(-sqrt(w / 2)) of the cells
        fits the wrong side better: 5 % at the default. If more than 5 % do, 5.9 times as many nats are needed, as for
        5 % of cells that are evenly spread along a line. If ``min_worth`` is below the default, the limit is the share
        at a gap of so many nats.
    infer
        Whether the number of default clusters is inferred. ``False`` keeps the K parts as default clusters.
    n_parts
        Number of parts K, if the last parts may be empty. ``None`` is one more than the highest in ``part``.

    Returns
    -------
    The tree.
    """
    joining = _Joining(part, graph, evidence, n_parts)
    if infer:
        joining.until(lambda a, b: joining.likeness(a, b, min_worth))
    n_default = len(joining.live)
    joining.until(joining.loss)
    return joining.tree(n_default, min_worth if infer else np.nan)


class _Joining:
    """Nodes that are joined pair by pair."""

    def __init__(self, part: np.ndarray, graph: csr_matrix, evidence: Evidence | None, n_parts: int | None):
        self.k, self.evidence = int(n_parts or part.max(initial=0) + 1), evidence
        rows = np.flatnonzero(part >= 0)
        member = csr_matrix((np.ones(len(rows)), (part[rows], rows)), (self.k, len(part)))
        self.live = list(range(self.k))
        self.pairs: list[tuple[int, int]] = []
        self.size = np.asarray(member.sum(1)).ravel().astype(int).tolist()
        self.groups: dict[int, Group] = {}  # of the live nodes
        self.splits: list[tuple[float, ...]] = []  # worth, error, between, confusion and connectivity of each pair
        if evidence is not None:
            self.groups = {k: evidence.group(np.flatnonzero(part == k)) for k in range(self.k)}
        n_nodes = 2 * self.k - 1
        self.edges = np.zeros((n_nodes, n_nodes))
        self.edges[: self.k, : self.k] = (member @ graph @ member.T).toarray()
        self.n_ends = max(self.edges.sum(), 1e-300)
        self.ends = self.edges[: self.k].sum(1).tolist()  # edge ends of each node

    def connectivity(self, a: int, b: int) -> float:
        """Number of edges between two nodes, relative to that expected by chance."""
        return self.edges[a, b] * self.n_ends / max(self.ends[a] * self.ends[b], 1e-300)

    def gain(self, a: int, b: int) -> Gain | None:
        """Gain of a split on held-out counts; ``None`` if these cannot compare its sides."""
        if self.evidence is not None and self.evidence.comparable(self.groups[a], self.groups[b]):
            return self.evidence.gain(self.groups[a], self.groups[b])
        return None

    def is_significant(self, a: int, b: int, gain: Gain) -> bool:
        """Whether the gain is significantly above 0."""
        return bool(lower_bound(*gain, min(self.size[a], self.size[b]), self.k - 1) > 0)

    def overlap(self, a: int, b: int) -> Overlap:
        """Where the cells of two nodes are between their profiles."""
        return overlap(cast(Evidence, self.evidence), self.groups[a], self.groups[b])

    def likeness(self, a: int, b: int, min_worth: float) -> float:
        """Difference of two nodes that may be one cluster; infinite for two clusters."""
        gain = self.gain(a, b)
        if gain is None:
            return -self.connectivity(a, b) if self.connectivity(a, b) > 1 else np.inf
        if gain.worth < min_worth or not self.is_significant(a, b, gain):
            return gain.worth
        is_clear = gain.worth >= EVEN * min_worth or self.overlap(a, b).confusion <= most_confused(min_worth)
        return np.inf if is_clear else gain.worth

    def loss(self, a: int, b: int) -> float:
        """Cost of joining two nodes."""
        if self.evidence is None:
            return -self.connectivity(a, b)
        return self.evidence.loss(self.groups[a], self.groups[b])

    def until(self, score: Callable[[int, int], float]) -> None:
        """Join the pair with the lowest score, and repeat while that score is finite."""
        scores = {(a, b): score(a, b) for i, a in enumerate(self.live) for b in self.live[i + 1 :]}
        while scores and min(scores.values()) < np.inf:
            pair = min(scores, key=scores.__getitem__)
            new = self.join(*pair)
            scores = {other: value for other, value in scores.items() if not set(other) & set(pair)}
            scores |= {(a, new): score(a, new) for a in self.live[:-1]}

    def join(self, a: int, b: int) -> int:
        """Join two nodes; return the number of the new one."""
        new = self.k + len(self.pairs)
        self.pairs.append((a, b))
        self.splits.append(self.split(a, b))
        self.live = [node for node in self.live if node not in (a, b)] + [new]
        self.size.append(self.size[a] + self.size[b])
        self.ends.append(self.ends[a] + self.ends[b])
        self.edges[new] = self.edges[a] + self.edges[b]
        self.edges[:, new] = self.edges[:, a] + self.edges[:, b]
        if self.groups:
            self.groups[new] = self.groups.pop(a).join(self.groups.pop(b))
        return new

    def split(self, a: int, b: int) -> tuple[float, ...]:
        """Worth, error, between, confusion and connectivity of the split into two nodes; nan where not supported."""
        gain = self.gain(a, b)
        is_supported = gain is not None and self.is_significant(a, b, gain)
        places = self.overlap(a, b) if is_supported else (np.nan, np.nan)
        return (*(gain or (np.nan, np.nan)), *places, self.connectivity(a, b))

    def tree(self, n_default: int, min_worth: float) -> Tree:
        """The tree; all cells must be in one node."""
        pairs = np.array(self.pairs, dtype=int).reshape(-1, 2)
        worth, error, between, confusion, connectivity = np.array(self.splits, dtype=float).reshape(-1, 5).T
        cells = np.array(self.size)[pairs]
        return Tree(pairs, cells, worth, error, between, confusion, connectivity, n_default, min_worth)
