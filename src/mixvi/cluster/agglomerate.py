"""A tree over clusters: they are joined pair by pair until one is left, and each join says what the split is worth.

With counts, the default clusters come first. Among the pairs that do not differ significantly, or by too little, on
held-out counts, the pair with the lowest worth joins, until there is no such pair. From then on the pair joins that
loses least log-likelihood of the other counts.

Without counts, the pair joins that has most edges of the neighbour graph for its sizes. Default clusters share no more
edges than by chance.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.evidence import Evidence, Gain, Group, lower_bound

MIN_WORTH = 5.41  # nats, 2 z^2 for z = 1.645: of clusters of equal size, at most 5 % of cells look like the other one
GRADE = 0.25  # cells half-way for each of the smaller side: half of what an even line has


class Tree(NamedTuple):
    """K leaves, and the K - 1 joins that make them one. Join j makes node K + j; nodes below K are the leaves."""

    pairs: np.ndarray  # (K - 1, 2) nodes that are joined
    cells: np.ndarray  # (K - 1, 2) how many cells they have
    worth: np.ndarray  # (K - 1,) nats by which a cell tells its side from the other; nan without counts, or where the
    # two sides are in different batches
    error: np.ndarray  # (K - 1,) standard error of it
    between: np.ndarray  # (K - 1,) cells half-way between, for each of the smaller side; nan where not supported
    connectivity: np.ndarray  # (K - 1,) edges between both sides over those expected by chance
    n_default: int  # clusters of which any two differ
    min_worth: float  # nats that are worth it; nan where the default clusters were not inferred

    @property
    def n_leaves(self) -> int:
        """Number of leaves K."""
        return len(self.pairs) + 1

    @property
    def supported(self) -> np.ndarray:
        """(K - 1,) whether the worth is above 0 beyond chance, by a t test with Bonferroni's correction."""
        return lower_bound(self.worth, self.error, self.cells.min(1, initial=2**60), len(self.pairs)) > 0

    @property
    def kind(self) -> np.ndarray:
        """(K - 1,) ``"gap"``, ``"grade"`` (cells stand between), ``"noise"`` (not supported), ``""`` without counts."""
        kind = np.where(self.between < GRADE, "gap", "grade")
        kind[~self.supported] = "noise"
        kind[np.isnan(self.worth)] = ""
        return kind

    def leaves(self) -> list[list[int]]:
        """The leaves below each of the 2 K - 1 nodes."""
        below = [[k] for k in range(self.n_leaves)]
        for a, b in self.pairs:
            below.append(below[a] + below[b])
        return below

    def nodes(self, n_clusters: int) -> list[int]:
        """The nodes that are left when there are so many clusters.

        Raises
        ------
        ValueError
            If the tree has fewer leaves.
        """
        if not 1 <= n_clusters <= self.n_leaves:
            raise ValueError(f"n_clusters={n_clusters}; this tree can be cut into 1 to {self.n_leaves} clusters.")
        n_joins = self.n_leaves - n_clusters
        joined = set(self.pairs[:n_joins].ravel().tolist())
        return [node for node in range(self.n_leaves + n_joins) if node not in joined]

    def cut(self, n_clusters: int) -> np.ndarray:
        """Number of the cluster (0, ...) of each leaf (K,) when there are so many; see `nodes` for their order."""
        group, below = np.empty(self.n_leaves, int), self.leaves()
        for i, node in enumerate(self.nodes(n_clusters)):
            group[below[node]] = i
        return group


def agglomerate(
    part: np.ndarray,
    graph: csr_matrix,
    evidence: Evidence | None = None,
    min_worth: float = MIN_WORTH,
    infer: bool = True,
    seed: int = 0,
    n_parts: int | None = None,
) -> Tree:
    """Build the tree over the K parts of a partition.

    Parameters
    ----------
    part
        (n,) part of each cell, numbered from 0; -1 for cells that are in none.
    graph
        (n, n) neighbour graph.
    evidence
        Of the same cells; ``None`` joins and judges by the graph alone.
    min_worth
        Nats by which any two default clusters must differ. With w nats, and as many cells on both sides, at most a
        share Phi(-sqrt(w / 2)) of them is likelier on the wrong side: 5 % at the default.
    infer
        Whether the number of default clusters is inferred; else they are the K parts.
    seed
        Of the cells that are looked at where there are many.
    n_parts
        Number of parts K where the last ones may have no cell; ``None`` takes those that have.
    """
    joining = _Joining(part, graph, evidence, n_parts)
    if infer:
        joining.until(lambda a, b: joining.likeness(a, b, min_worth))
    n_default = len(joining.live)
    joining.until(joining.loss)
    return joining.tree(n_default, min_worth if infer else np.nan, seed)


class _Joining:
    """Nodes that are joined pair by pair."""

    def __init__(self, part: np.ndarray, graph: csr_matrix, evidence: Evidence | None, n_parts: int | None):
        self.k, self.evidence = int(n_parts or part.max(initial=0) + 1), evidence
        rows = np.flatnonzero(part >= 0)
        member = csr_matrix((np.ones(len(rows)), (part[rows], rows)), (self.k, len(part)))
        self.live, self.pairs = list(range(self.k)), []
        self.size = np.asarray(member.sum(1)).ravel().astype(int).tolist()
        self.groups: list[Group] = []
        if evidence is not None:
            self.groups = [evidence.group(np.flatnonzero(part == k)) for k in range(self.k)]
        n_nodes = 2 * self.k - 1
        self.edges = np.zeros((n_nodes, n_nodes))
        self.edges[: self.k, : self.k] = (member @ graph @ member.T).toarray()
        self.n_ends = max(self.edges.sum(), 1e-300)
        self.ends = self.edges[: self.k].sum(1).tolist()  # edge ends of each node

    def connectivity(self, a: int, b: int) -> float:
        """Edges between two nodes over those that chance would put there."""
        return self.edges[a, b] * self.n_ends / max(self.ends[a] * self.ends[b], 1e-300)

    def gain(self, a: int, b: int) -> Gain | None:
        """What held-out counts say of a split, or ``None`` if they cannot compare its sides."""
        if self.groups and self.evidence.comparable(self.groups[a], self.groups[b]):
            return self.evidence.gain(self.groups[a], self.groups[b])
        return None

    def is_significant(self, a: int, b: int, gain: Gain) -> bool:
        """Whether the gain is above 0 beyond chance."""
        return bool(lower_bound(*gain, min(self.size[a], self.size[b]), self.k - 1) > 0)

    def likeness(self, a: int, b: int, min_worth: float) -> float:
        """What two nodes that are one cluster differ by; infinite for two clusters."""
        gain = self.gain(a, b)
        if gain is None:
            return -self.connectivity(a, b) if self.connectivity(a, b) > 1 else np.inf
        return np.inf if self.is_significant(a, b, gain) and gain.worth >= min_worth else gain.worth

    def loss(self, a: int, b: int) -> float:
        """What joining two nodes costs."""
        return self.evidence.loss(self.groups[a], self.groups[b]) if self.groups else -self.connectivity(a, b)

    def until(self, score: Callable[[int, int], float]) -> None:
        """Join the pair with the lowest score, again and again, while it is finite."""
        scores = {(a, b): score(a, b) for i, a in enumerate(self.live) for b in self.live[i + 1 :]}
        while scores and min(scores.values()) < np.inf:
            pair = min(scores, key=scores.get)
            new = self.join(*pair)
            scores = {other: value for other, value in scores.items() if not set(other) & set(pair)}
            scores |= {(a, new): score(a, new) for a in self.live[:-1]}

    def join(self, a: int, b: int) -> int:
        """Make one node of two, and give its number."""
        new = self.k + len(self.pairs)
        self.pairs.append((a, b))
        self.live = [node for node in self.live if node not in (a, b)] + [new]
        self.size.append(self.size[a] + self.size[b])
        self.ends.append(self.ends[a] + self.ends[b])
        self.edges[new] = self.edges[a] + self.edges[b]
        self.edges[:, new] = self.edges[:, a] + self.edges[:, b]
        if self.groups:
            self.groups.append(self.groups[a].join(self.groups[b]))
        return new

    def tree(self, n_default: int, min_worth: float, seed: int) -> Tree:
        """The tree, when all is one node."""
        rows = []
        for a, b in self.pairs:
            gain, between = self.gain(a, b), np.nan
            if gain is not None and self.is_significant(a, b, gain):
                between = self.evidence.between(self.groups[a], self.groups[b], seed)
            rows.append((*(gain or (np.nan, np.nan)), between, self.connectivity(a, b)))
        pairs = np.array(self.pairs, dtype=int).reshape(-1, 2)
        values = np.array(rows, dtype=float).reshape(-1, 4).T
        return Tree(pairs, np.array(self.size)[pairs], *values, n_default, min_worth)
