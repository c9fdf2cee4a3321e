"""The result of training a mixture: leaves, their tree, and the shares of the cells."""

from typing import Any, NamedTuple

import numpy as np

from mixvi.cluster.agglomerate import Tree


class Clusters(NamedTuple):
    """The partition that initialised K components of a mixture. It is saved with the model."""

    init: str  # name of the choice of ``init``
    rows: np.ndarray  # (m,) rising row numbers of the training cells that were partitioned
    part: np.ndarray  # (m,) leaf of each cell; -1 for none
    shares: np.ndarray  # (m, K) shares of each cell in the leaves, float16
    tree: Tree
    n_classes: int  # number of labelled classes; they are the first leaves
    weights: dict[str, float]  # weight of each view of the cells in the neighbour graph
    size: np.ndarray  # (K,) expected number of these cells in each component, after training
    accuracy: float  # share of held-out labels that were predicted; nan without labels
    overdispersion: np.ndarray  # (g,) 1 / theta of each gene, for count splitting; empty without counts
    seed: int  # seed of count splitting
    smooth: bool  # whether training adds the virtual adversarial term

    def nodes(self, n_clusters: int) -> list[int]:
        """Node of each cluster, at a cut into ``n_clusters``: classes first, then by expected number of cells."""
        below = self.tree.leaves()
        return sorted(self.tree.nodes(n_clusters), key=lambda node: self._rank(below[node], n_clusters))

    def groups(self, n_clusters: int) -> list[list[int]]:
        """Components of each cluster, in the order of `nodes`."""
        below = self.tree.leaves()
        return [sorted(below[node]) for node in self.nodes(n_clusters)]

    def _rank(self, leaves: list[int], n_clusters: int) -> tuple[int, float]:
        classes = [leaf for leaf in leaves if leaf < self.n_classes]
        if classes and n_clusters >= self.n_classes:
            return (min(classes), 0.0)
        return (self.n_classes, -float(self.size[leaves].sum()))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values and arrays, for files."""
        return self._asdict() | {"tree": self.tree._asdict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Clusters":
        """Convert back from the result of `to_dict`."""
        unknown = {"confusion": np.full(len(values["tree"]["worth"]), np.nan)}  # in files of 0.1.0
        return cls(**values | {"tree": Tree(**unknown | values["tree"])})
