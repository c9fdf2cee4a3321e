"""Clusters from arrays: neighbour graphs, communities, the tree over them and its evidence. No AnnData, no model.

Files that only ``init`` or labels ask for load when they are first used.
"""

import importlib

from mixvi.cluster.agglomerate import Tree, agglomerate
from mixvi.cluster.calibration import temperature
from mixvi.cluster.count_splitting import Halves, split_counts
from mixvi.cluster.dispersion import overdispersion
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.graph import count_views, shared_neighbors
from mixvi.cluster.leiden import by_size, leiden
from mixvi.cluster.markers import Markers, markers
from mixvi.cluster.partition import Partition, find_partition

__all__ = [
    "Evidence",
    "Halves",
    "Markers",
    "Partition",
    "Tree",
    "agglomerate",
    "by_size",
    "count_views",
    "find_partition",
    "leiden",
    "markers",
    "overdispersion",
    "shared_neighbors",
    "split_counts",
    "temperature",
]


def __getattr__(name: str):
    if name not in ("imsat", "label_spreading", "n2d", "vat"):
        raise AttributeError(f"module 'mixvi.cluster' has no attribute {name!r}")
    return importlib.import_module(f"mixvi.cluster.{name}")
