"""Plots, with scanpy's habits: they return axes, and take ``show`` and ``save``."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import dendrogram

if TYPE_CHECKING:
    from mixvi.cluster import MergeTree
    from mixvi.model._base import LatentModel


def umap(
    adata: AnnData, key: str = "mixvi", labels: str | None = None, show: bool | None = None, save: Path | None = None
) -> list[Axes]:
    """UMAP of the latent space, coloured by cluster, by confidence and by known labels.

    Parameters
    ----------
    adata
        Annotated by ``model.annotate()``. It is not written to.
    key
        The ``key_added`` of that call.
    labels
        Column of ``.obs`` to compare with.
    show
        Show the figure; by default if it is not saved.
    save
        File to write.

    Returns
    -------
    One axes a panel.
    """
    cells = AnnData(np.asarray(adata.obsm[f"X_{key}"]), obs=adata.obs)
    panels = [key, f"{key}_confidence", *([labels] if labels else [])]
    if labels is not None and labels not in adata.obs:
        raise KeyError(f"There is no column {labels!r} in .obs; there are {list(adata.obs)}.")
    panels = [panel for panel in panels if panel in adata.obs] or [None]
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.umap(cells)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels) + 1.5, 4.2), layout="constrained")
    axes = list(np.atleast_1d(axes))
    titles = {None: "latent space", key: "cluster", f"{key}_confidence": "confidence"}
    for ax, panel in zip(axes, panels, strict=True):
        sc.pl.umap(cells, color=panel, ax=ax, show=False, frameon=False, title=titles.get(panel, labels))
    _finish(show, save)
    return axes


def training(model: "LatentModel", show: bool | None = None, save: Path | None = None) -> list[Axes]:
    """The bound and its terms by epoch, in nats a cell, for training (line) and validation (dashed) cells.

    Parameters
    ----------
    model
        Trained.
    show, save
        As in `umap`.

    Returns
    -------
    One axes a term.
    """
    history = model.history
    sums = ("kl_local", "kl_global")  # of what has a panel of its own, or of nothing
    terms = [key.removesuffix("_train") for key in history if key.endswith("_train") and "loss" not in key[:10]]
    terms = [term for term in terms if term not in sums]
    figure, axes = plt.subplots(1, len(terms), figsize=(3.2 * len(terms), 2.8), layout="constrained")
    axes = list(np.atleast_1d(axes))
    for ax, term in zip(axes, terms, strict=True):
        for split, style in (("train", "-"), ("validation", "--")):
            if f"{term}_{split}" in history:
                values = history[f"{term}_{split}"].astype(float)
                ax.plot(values.index, values.to_numpy().ravel(), style, label=split)
        title = "negative ELBO" if term == "elbo" else term.replace("_", " ")
        ax.set(title=title, xlabel="epoch", ylabel="nats per cell")
    axes[0].legend(frameon=False)
    _finish(show, save)
    return axes


def merge_tree(tree: "MergeTree", ax: Axes | None = None, show: bool | None = None, save: Path | None = None) -> Axes:
    """Which clusters belong together: those joined nearest to their names hang together most.

    Parameters
    ----------
    tree
        From ``model.merge_tree()``.
    ax
        Where to draw; ``None`` makes a figure.
    show, save
        As in `umap`.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.5, 1 + 0.25 * len(tree.names)), layout="constrained")
    if len(tree.names) > 1:
        dendrogram(tree.linkage, labels=tree.names, orientation="left", ax=ax, color_threshold=0)
    ax.set(xlabel="1 / (1 + edges over expected)", title="merge tree")
    ax.set_ylabel("cluster")
    ax.yaxis.set_label_position("right")  # beside the names
    _finish(show, save, ax)
    return ax


def _finish(show: bool | None, save: Path | None, ax: Axes | None = None) -> None:
    figure = plt.gcf() if ax is None else ax.figure
    if save is not None:
        figure.savefig(save, dpi=120)
    if show or (show is None and save is None):
        plt.show()
    elif save is not None:
        plt.close(figure)
