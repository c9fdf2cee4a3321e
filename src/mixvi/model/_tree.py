"""The tree over the clusters of a GMVAE, with names: printed, as a table, and cut at any number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mixvi._warnings import warn
from mixvi.cluster.agglomerate import EVEN, Tree, most_confused
from mixvi.train import Clusters


def warn_of_noise(tree: Tree, splits: Sequence[int]) -> None:
    """Warn if some of the splits with these numbers are noise."""
    if n_noise := int((tree.kind[list(splits)] == "noise").sum()):
        what = "1 split is" if n_noise == 1 else f"{n_noise} splits are"
        warn(f"{what} noise: held-out counts do not support {'it' if n_noise == 1 else 'them'}. See model.tree.table.")


class Split(NamedTuple):
    """One split of the tree."""

    node: str  # what is split
    left: str  # the larger side
    right: str
    cells_left: int
    cells_right: int
    worth: float  # nats per cell: held-out gain of a profile for each side over a joint one; nan without counts
    error: float  # its standard error
    kind: str  # "gap", "grade" (many cells lie between the sides) or "noise" (no gain beyond chance); "" without counts
    between: float  # cells half-way between both sides, for each cell of the smaller side
    confusion: float  # share of cells that fit the other side better, if both sides were of one size
    connectivity: float  # edges of the neighbour graph between both sides, over those expected by chance
    kept: bool  # whether the two sides are different clusters where the tree is cut by default


class ClusterTree:
    """Named tree over clusters. ``print(tree)`` draws it; ``tree.table`` has one row for each split, the top one first.

    A cluster has the name that `GMVAE.predict` gives it. Above, the names of a node's clusters are joined by "+".
    Below, the larger part of cluster "3" is "3.0", the smaller one "3.1", and so on.
    """

    def __init__(self, clusters: Clusters, names: list[str]):
        self.clusters, tree = clusters, clusters.tree
        n_leaves = tree.n_leaves
        self.names: list[str] = [""] * (2 * n_leaves - 1)  # of each node
        below = tree.leaves()
        groups = clusters.groups(len(names))
        for node, leaves in enumerate(below):
            if sorted(leaves) in groups:
                self.names[node] = names[groups.index(sorted(leaves))]
        n_joins = n_leaves - len(names)
        for j in range(n_joins - 1, -1, -1):  # below the cut, from the top
            for i, child in enumerate(self._children(n_leaves + j)):
                self.names[child] = f"{self.names[n_leaves + j]}.{i}"
        for node in range(n_leaves + n_joins, 2 * n_leaves - 1):  # above the cut
            inside = [name for name, leaves in zip(names, groups, strict=True) if set(leaves) <= set(below[node])]
            self.names[node] = "+".join(inside)
        self._n_kept = len(names) - 1

    def _children(self, node: int) -> list[int]:
        """Both nodes below, the one of more cells first."""
        j = node - self.clusters.tree.n_leaves
        pair, cells = self.clusters.tree.pairs[j], self.clusters.tree.cells[j]
        return [int(pair[i]) for i in np.argsort(-cells, kind="stable")]

    @property
    def splits(self) -> list[Split]:
        """Every split, the top one first."""
        tree, found = self.clusters.tree, []
        for j in range(tree.n_leaves - 2, -1, -1):
            order = np.argsort(-tree.cells[j], kind="stable")
            left, right = (self.names[tree.pairs[j][i]] for i in order)
            cells_left, cells_right = (int(tree.cells[j][i]) for i in order)
            split = Split(
                self.names[tree.n_leaves + j], left, right, cells_left, cells_right,
                float(tree.worth[j]), float(tree.error[j]), str(tree.kind[j]), float(tree.between[j]),
                float(tree.confusion[j]), float(tree.connectivity[j]), kept=j >= tree.n_leaves - 1 - self._n_kept,
            )  # fmt: skip
            found.append(split)
        return found

    @property
    def table(self) -> pd.DataFrame:
        """One row for each split, with the columns of `Split`."""
        return pd.DataFrame(self.splits, columns=Split._fields)

    def cut(self, n_clusters: int) -> pd.Series:
        """Which of so many clusters (0, 1, ...) each leaf is in, by the leaf's name.

        Raises
        ------
        ValueError
            If the tree has fewer leaves.
        """
        groups = self.clusters.groups(n_clusters)
        of = {leaf: i for i, leaves in enumerate(groups) for leaf in leaves}
        return pd.Series({self.names[leaf]: of[leaf] for leaf in range(self.clusters.tree.n_leaves)})

    def node(self, name: str) -> int:
        """Number of the node of this name.

        Raises
        ------
        ValueError
            If there is none.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is no cluster of this tree; there are {self.names}.")
        return self.names.index(name)

    def below(self, name: str, n_clusters: int | None = None) -> dict[str, list[int]]:
        """The clusters inside a node, by name, with their leaves.

        Parameters
        ----------
        name
            Name of the node.
        n_clusters
            Number of clusters inside; ``None`` makes all splits that are supported, and at least the first.

        Raises
        ------
        ValueError
            If there is no such node, or it cannot be split into so many clusters.
        """
        tree, leaves = self.clusters.tree, self.clusters.tree.leaves()
        node = self.node(name)
        inside = [j for j in range(tree.n_leaves - 1) if set(leaves[tree.n_leaves + j]) <= set(leaves[node])]
        if n_clusters is None:
            supported = [len(inside) - i for i, j in enumerate(inside) if tree.supported[j]]
            n_clusters = max([2, *(n + 1 for n in supported)])
        if not inside:
            raise ValueError(f"Cluster {name!r} is a leaf of the tree and has no parts.")
        if not 2 <= n_clusters <= len(inside) + 1:
            raise ValueError(
                f"Cluster {name!r} can be split into 2 to {len(inside) + 1} parts; n_clusters={n_clusters}."
            )
        live, joins = [node], inside[::-1][: n_clusters - 1]
        warn_of_noise(tree, joins)
        for j in joins:
            live.remove(tree.n_leaves + j)
            live += self._children(tree.n_leaves + j)
        return {self.names[part]: leaves[part] for part in live}

    def __str__(self) -> str:
        tree = self.clusters.tree
        is_default = self._n_kept + 1 == tree.n_default and not np.isnan(tree.min_worth)
        is_default &= not np.isnan(tree.worth[tree.n_leaves - 1 - self._n_kept :]).any()
        worth = ""
        if is_default:
            worth = f"; any two differ significantly, by at least {tree.min_worth:.3g} nats a cell"
            if not np.isnan(tree.confusion[tree.n_leaves - 1 - self._n_kept :]).any():  # not in files of 0.1.0
                worth += f" ({EVEN * tree.min_worth:.3g} if over {most_confused(tree.min_worth):.0%} are confused)"
        lines = [f"{self._n_kept + 1} clusters of {len(self.clusters.rows):,} training cells{worth}"]
        self._draw(2 * tree.n_leaves - 2, "", len(self.clusters.rows), lines)
        return "\n".join(lines)

    __repr__ = __str__

    def _draw(self, node: int, indent: str, n_cells: int, lines: list[str]) -> None:
        """One line for a node and for each node below that is a cluster or a supported part of one."""
        tree, j = self.clusters.tree, node - self.clusters.tree.n_leaves
        kept = j >= tree.n_leaves - 1 - self._n_kept
        is_end = j < 0 or not (kept or tree.supported[j])
        what = ""
        if not is_end:
            what = f" splits by connectivity {tree.connectivity[j]:.2g}"
            if not np.isnan(tree.worth[j]):
                what = f" splits: {tree.worth[j]:.3g} +- {tree.error[j]:.2g} nats, a {tree.kind[j]}"
                what += "" if np.isnan(tree.confusion[j]) else f", {tree.confusion[j]:.1%} confused"
            what += "" if kept else ", not kept"
        lines.append(f"{indent}{self.names[node]} ({n_cells:,} cells){what}")
        if not is_end:
            cells = dict(zip(tree.pairs[j].tolist(), tree.cells[j].tolist(), strict=True))
            for child in self._children(node):
                self._draw(child, indent + "  ", cells[child], lines)
