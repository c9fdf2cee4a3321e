"""Plots, with scanpy's habits: they return axes, and take ``show`` and ``save``."""

from mixvi.pl._models import confusion, images, n_latent, training, weights
from mixvi.pl._perturb import gene_violin, perturbed_latent, predicted_means
from mixvi.pl._tree import tree
from mixvi.pl._umap import umap

__all__ = [
    "confusion",
    "gene_violin",
    "images",
    "n_latent",
    "perturbed_latent",
    "predicted_means",
    "training",
    "tree",
    "umap",
    "weights",
]
