"""Plots of training, of clusters and of generated images."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mixvi.data import check_names, check_present
from mixvi.pl._figure import check_given, finish, grid

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._gmvae import GMVAE

MEAN_OF = 200  # images
TERMS = {  # of the loss: title and explanation
    "elbo": ("negative ELBO", "reconstruction + all KL terms; lower is better"),
    "reconstruction_loss": ("reconstruction", "-log p(x | z): misfit to the data"),
    "kl_z": ("KL of z", "distance of q(z | x) from its prior"),
    "kl_y": ("KL of y, the cluster", "distance of q(y | x) from the cluster weights"),
    "kl_w": ("KL of w", "distance of q(w | x) from its prior"),
    "label": ("labels", "-log q(y | x) of labelled cells; not in the ELBO"),
    "guide": ("guide", "pull of cells to clusters; not in the ELBO"),
}


def training(model: "LatentModel", show: bool | None = None, save: Path | None = None) -> list[Axes]:
    """Negative ELBO and its terms by epoch, in nats per cell, of training (solid) and validation (dashed) cells.

    Each panel is one term. Its title names the term and says what it measures. A dotted line marks the epoch in which a
    GMVAE places its clusters.

    Parameters
    ----------
    model
        A trained model.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    One axes for each term.

    Raises
    ------
    ValueError
        If the model is not trained.
    """
    check_given(model, "history", "a trained model")
    history = model.history
    if not history:
        raise ValueError(f"This {type(model).__name__} has no history to draw; call model.train() first.")
    sums = ("kl_local", "kl_global")  # kl_local is drawn term by term, kl_global concerns parameters and not cells
    terms = [key.removesuffix("_train") for key in history if key.endswith("_train") and "loss" not in key[:10]]
    terms = [term for term in terms if term not in sums]
    axes = grid(len(terms), 3, (3.6, 3))
    for ax, term in zip(axes, terms, strict=True):
        for split, name, style in (("train", "training", "-"), ("validation", "validation", "--")):
            if f"{term}_{split}" in history:
                values = history[f"{term}_{split}"].astype(float)
                ax.plot(values.index, values.to_numpy().ravel(), style, label=name)
        if "guide_train" in history:
            ax.axvline(history["guide_train"].index[0], color="0.6", linestyle=":", zorder=0, label="clusters placed")
        title, explanation = TERMS.get(term, (term.replace("_", " "), ""))
        ax.set_title(f"{title}\n", fontsize="medium")
        ax.annotate(explanation, (0.5, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", ha="center",
                    fontsize="x-small")  # fmt: skip
        ax.set(xlabel="epoch", ylabel="nats per cell")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False, fontsize="small")
    finish(show, save, axes[0])
    return axes


def n_latent(table: pd.DataFrame, ax: Axes | None = None, show: bool | None = None, save: Path | None = None) -> Axes:
    """Evidence of held-out cells by the number of latent dimensions. The dashed line is the choice.

    Bars are one standard error of the difference from the best.

    Parameters
    ----------
    table
        From `mixvi.select_n_latent`.
    ax
        Where to draw; ``None`` makes a figure.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the table is another one.
    """
    if not {"log_evidence", "standard_error", "n_active", "selected"} <= set(table):
        raise ValueError(f"The table has columns {list(table)}; pass that of mixvi.select_n_latent().")
    ax = grid(1, 1, (4, 3))[0] if ax is None else ax
    ax.errorbar(table.index, table["log_evidence"], table["standard_error"], marker="o", capsize=3)
    for x, y, n_active in zip(table.index, table["log_evidence"], table["n_active"], strict=True):
        ax.annotate(f"{n_active} active", (x, y), (4, -10), textcoords="offset points", fontsize="x-small")
    ax.axvline(table.index[table["selected"]][0], color="gray", linestyle="--", zorder=0)
    ax.set(xlabel="latent dimensions", ylabel="log evidence (nats per cell)")
    ax.margins(x=0.2)
    finish(show, save, ax)
    return ax


def weights(model: "GMVAE", ax: Axes | None = None, show: bool | None = None, save: Path | None = None) -> Axes:
    """Share of the cells in each cluster (bars), and the weight of its components in the prior (dots).

    Parameters
    ----------
    model
        A trained GMVAE.
    ax
        Where to draw; ``None`` makes a figure whose height grows with the number of clusters.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    The axes, with one row for each cluster, the first on top. Both numbers are fractions that sum to 1.
    """
    check_given(model, "cluster_names", "a trained GMVAE")
    names = model.cluster_names
    if ax is None:
        _, ax = plt.subplots(figsize=_size(names), layout="constrained")
    share = pd.Series(model.predict()).value_counts(normalize=True).reindex(names, fill_value=0)
    weight = model.module.prior.log_weights().exp().detach().cpu()
    groups = [slice(None)] if model.clusters_ is None else model.tree.clusters.groups(len(names))
    prior = [float(weight[group].sum()) for group in groups]
    rows = np.arange(len(names))
    ax.barh(rows, share, color="0.75", label="share of the cells")
    ax.plot(prior, rows, "o", ms=5, color="C0", label="weight in the prior")
    ax.set_yticks(rows, names)
    ax.set(xlabel="fraction", ylabel="cluster", ylim=(len(names) - 0.4, -0.6))
    ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    finish(show, save, ax)
    return ax


def _size(names: list[str]) -> tuple[float, float]:
    """Width and height in inches of a figure with one row and one written name for each cluster."""
    return 4.8 + 0.08 * max(map(len, names)), 1.1 + 0.24 * len(names)


def confusion(
    adata: AnnData,
    labels: str,
    key: str = "mixvi",
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Confusion matrix: one row for each label, with the share of its cells in each cluster.

    Rows sum to 1. They are sorted so that large shares lie along the diagonal.

    Parameters
    ----------
    adata
        Annotated by ``model.annotate()``.
    labels
        Column of ``.obs`` with names.
    key
        The ``key_added`` of that call.
    ax
        Where to draw; ``None`` makes a figure.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If ``labels`` has fractions instead of names.
    """
    check_given(adata, "obs", "an AnnData that model.annotate() has written to")
    check_present(adata.obs, [labels, key])
    check_names(adata.obs, labels)
    table = pd.crosstab(adata.obs[labels], adata.obs[key], normalize="index")
    table = table.iloc[table.to_numpy().argmax(1).argsort(kind="stable")]
    if ax is None:
        width, height = (0.4 * n for n in table.shape[::-1])
        _, ax = plt.subplots(figsize=(width + 3, height + 1.2), layout="constrained")
    picture = ax.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set(xticks=range(table.shape[1]), yticks=range(table.shape[0]), xlabel="cluster", ylabel=labels)
    ax.set_xticklabels(table.columns, rotation=0 if max(map(len, map(str, table.columns))) < 4 else 90)
    ax.set_yticklabels(table.index)
    ax.figure.colorbar(picture, ax=ax, label="share of the label's cells")
    finish(show, save, ax)
    return ax


def images(
    model: "LatentModel",
    n_samples: int = 8,
    shape: tuple[int, int] | None = None,
    seed: int = 0,
    show: bool | None = None,
    save: Path | None = None,
) -> np.ndarray:
    """Images that a model generates: one row for each cluster, with the mean of many images first.

    Parameters
    ----------
    model
        A model trained on images, one image for each cell.
    n_samples
        Number of images in each row, beside the mean.
    shape
        Height and width in pixels; ``None`` takes ``adata.uns["image_shape"]``, or a square.
    seed
        Of the draws.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    (rows, n_samples + 1) axes.

    Raises
    ------
    ValueError
        If the number of pixels differs from height x width.
    """
    check_given(model, "get_latent_representation", "images by a trained model")
    n_pixels = model.adata.n_vars
    shape = tuple(shape or model.adata.uns.get("image_shape", (round(n_pixels**0.5),) * 2))
    if shape[0] * shape[1] != n_pixels:
        raise ValueError(f"{n_pixels} pixels do not fill {shape[0]} x {shape[1]}; give the shape (height, width).")
    names = getattr(model, "cluster_names", [None])
    figure, axes = plt.subplots(
        len(names), n_samples + 1, figsize=(0.7 * (n_samples + 1) + 0.5, 0.7 * len(names) + 0.3), squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        drawn = np.asarray(model.sample(max(MEAN_OF, n_samples), component=name, seed=seed, give_mean=True).X)
        for ax, pixels in zip(row, [drawn.mean(0), *drawn[:n_samples]], strict=True):
            ax.imshow(pixels.reshape(shape), cmap="gray_r", vmin=0)
            ax.set(xticks=[], yticks=[])
        if name is not None:
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    axes[0, 0].set_title("mean", fontsize="small")
    finish(show, save)
    return axes
