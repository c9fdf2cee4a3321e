"""What the phases of a mixture found: leaves, the tree over them, and what guides the cells to them."""

from typing import Any, NamedTuple

import numpy as np

from mixvi.cluster.agglomerate import Tree


class Clusters(NamedTuple):
    """The partition that K components of a mixture start from; it is saved with the model."""

    init: str  # how the leaves were found
    rows: np.ndarray  # (m,) rising row numbers of the training cells that were partitioned
    part: np.ndarray  # (m,) leaf of each, -1 for none
    shares: np.ndarray  # (m, K) float16, how far each belongs to the leaves
    tree: Tree
    n_classes: int  # the first leaves are labelled classes
    weights: dict[str, float]  # of each view of the cells in the neighbour graph
    size: np.ndarray  # (K,) expected number of these cells in each component, after training
    accuracy: float  # share of held-out labels that were found; nan without labels
    overdispersion: np.ndarray  # (g,) 1 / theta of each gene, for count splitting; empty without counts
    seed: int  # of count splitting
    smooth: bool  # whether small changes of a cell must leave it in its cluster

    def groups(self, n_clusters: int) -> list[list[int]]:
        """Components of each of so many clusters: classes first, then by expected number of cells."""
        below = self.tree.leaves()
        found = [sorted(below[node]) for node in self.tree.nodes(n_clusters)]
        return sorted(found, key=lambda leaves: self._rank(leaves, n_clusters))

    def _rank(self, leaves: list[int], n_clusters: int) -> tuple[int, float]:
        classes = [leaf for leaf in leaves if leaf < self.n_classes]
        if classes and n_clusters >= self.n_classes:
            return (min(classes), 0.0)
        return (self.n_classes, -float(self.size[leaves].sum()))

    def to_dict(self) -> dict[str, Any]:
        """As plain values and arrays, for files."""
        return self._asdict() | {"tree": self.tree._asdict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Clusters":
        """What `to_dict` gave."""
        return cls(**values | {"tree": Tree(**values["tree"])})
