"""Plots of what models found."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes

from mixvi.data import check_names, check_present
from mixvi.pl._figure import check_given, finish

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._gmvae import GMVAE

MEAN_OF = 200  # images


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

    Raises
    ------
    ValueError
        If nothing of that key was annotated.
    KeyError
        If there is no such column.
    """
    check_given(adata, "obsm", "an AnnData that model.annotate() has written to")
    if f"X_{key}" not in adata.obsm:
        raise ValueError(
            f"There is no .obsm['X_{key}']; call model.annotate(adata) first, or name its key_added as key. "
            f"There are {list(adata.obsm)}."
        )
    cells = AnnData(np.asarray(adata.obsm[f"X_{key}"]), obs=adata.obs)
    panels = [key, f"{key}_confidence", *([labels] if labels else [])]
    check_present(adata.obs, [labels] if labels else [])
    panels = [panel for panel in panels if panel in adata.obs] or [None]
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.umap(cells)
    _color_alike(cells, [panel for panel in (key, labels) if panel in panels])
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels) + 1.5, 4.2), layout="constrained")
    axes = list(np.atleast_1d(axes))
    titles = {None: "latent space", key: "cluster", f"{key}_confidence": "confidence"}
    for ax, panel in zip(axes, panels, strict=True):
        sc.pl.umap(cells, color=panel, ax=ax, show=False, frameon=False, title=titles.get(panel, labels))
    finish(show, save)
    return axes


def _color_alike(cells: AnnData, keys: list[str]) -> None:
    """One colour for each name, where columns share some."""
    keys = [key for key in keys if not pd.api.types.is_numeric_dtype(cells.obs[key])]
    kinds = [list(cells.obs[key].astype("category").cat.categories) for key in keys]
    names = list(dict.fromkeys(name for kind in kinds for name in kind))
    if len(names) < sum(map(len, kinds)):
        palettes = (sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
        palette = next((palette for palette in palettes if len(palette) >= len(names)), palettes[-1])
        colors = dict(zip(names, palette, strict=False))
        for key, kind in zip(keys, kinds, strict=True):
            cells.uns[f"{key}_colors"] = [colors.get(name, "0.5") for name in kind]


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

    Raises
    ------
    ValueError
        If the model is not trained.
    """
    check_given(model, "history", "a trained model")
    history = model.history
    if not history:
        raise ValueError(f"This {type(model).__name__} has no history to draw; call model.train() first.")
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
    finish(show, save)
    return axes


def weights(model: "GMVAE", ax: Axes | None = None, show: bool | None = None, save: Path | None = None) -> Axes:
    """Share of the cells in each cluster (bars), and the weight of its components in the prior (dots).

    Parameters
    ----------
    model
        A trained GMVAE.
    ax, show, save
        As in `umap`.
    """
    check_given(model, "cluster_names", "a trained GMVAE")
    names = model.cluster_names
    if ax is None:
        _, ax = plt.subplots(figsize=(1.5 + 0.35 * len(names), 3), layout="constrained")
    share = pd.Series(model.predict()).value_counts(normalize=True).reindex(names, fill_value=0)
    ax.bar(names, share, color="0.75", label="cells")
    prior = model.module.prior.log_weights().exp().detach().cpu()
    prior = [float(prior[model._component_index(name)].sum()) for name in names]
    ax.plot(names, prior, "o", ms=5, color="C0", label="weight")
    ax.set(xlabel="cluster", ylabel="share")
    ax.tick_params(axis="x", rotation=0 if max(map(len, names)) < 4 else 90)
    ax.legend(frameon=False)
    finish(show, save, ax)
    return ax


def confusion(
    adata: AnnData,
    labels: str,
    key: str = "mixvi",
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Where the cells of each label went: one row a label, summing to 1, in the order that brings out the diagonal.

    Parameters
    ----------
    adata
        Annotated by ``model.annotate()``.
    labels
        Column of ``.obs``.
    key
        The ``key_added`` of that call.
    ax, show, save
        As in `umap`.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it holds fractions.
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
    """Images that a model generates: one row a cluster, first their mean, then single ones.

    Parameters
    ----------
    model
        Trained on images, one a cell.
    n_samples
        Images a row, beside the mean.
    shape
        Height and width in pixels; ``None`` takes ``adata.uns["image_shape"]``, or a square.
    seed
        Of the draws.
    show, save
        As in `umap`.

    Returns
    -------
    Axes (rows, n_samples + 1).

    Raises
    ------
    ValueError
        If the pixels do not fill that shape.
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
        drawn = model.sample(max(MEAN_OF, n_samples), component=name, seed=seed, give_mean=True).X
        for ax, pixels in zip(row, [drawn.mean(0), *drawn[:n_samples]], strict=True):
            ax.imshow(pixels.reshape(shape), cmap="gray_r", vmin=0)
            ax.set(xticks=[], yticks=[])
        if name is not None:
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    axes[0, 0].set_title("mean", fontsize="small")
    finish(show, save)
    return axes
