"""Clusters from arrays: neighbour graphs, communities, the tree over them and its evidence. No AnnData, no model."""

from mixvi.cluster.agglomerate import Tree, agglomerate
from mixvi.cluster.calibration import temperature
from mixvi.cluster.count_splitting import Halves, split_counts
from mixvi.cluster.dispersion import overdispersion
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.graph import count_views, shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.cluster.markers import Markers, markers
from mixvi.cluster.partition import Partition, find_partition

__all__ = [
    "Evidence",
    "Halves",
    "Markers",
    "Partition",
    "Tree",
    "agglomerate",
    "count_views",
    "find_partition",
    "leiden",
    "markers",
    "overdispersion",
    "shared_neighbors",
    "split_counts",
    "temperature",
]
