"""Plots, with scanpy's habits: they return axes, and take ``show`` and ``save``."""

from mixvi.pl._models import confusion, images, merge_tree, training, umap, weights
from mixvi.pl._perturb import gene_violin, perturbed_latent, predicted_means

__all__ = [
    "confusion",
    "gene_violin",
    "images",
    "merge_tree",
    "perturbed_latent",
    "predicted_means",
    "training",
    "umap",
    "weights",
]
