"""Plots of predicted cells beside real ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes

from mixvi import metrics
from mixvi.metrics import Trio, moments
from mixvi.perturb import expression, is_counts
from mixvi.pl._figure import check_given, finish

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

COLORS = {"control": "0.6", "predicted": "C1", "stimulated": "C0"}


def predicted_means(
    predicted: AnnData,
    observed: AnnData,
    control: AnnData,
    layer: str | None = None,
    n_names: int = 8,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Predicted against real mean of each gene, the genes that really change most named, with R2 of all and of these.

    Parameters
    ----------
    predicted
        From ``predict`` of a `mixvi.perturb.Predictor`.
    observed, control
        The real stimulated cells and the control cells, with the same genes.
    layer
        Layer of these two with the values; ``None`` is ``.X``.
    n_names
        Genes to name.
    ax
        Where to draw; ``None`` makes a figure.
    show, save
        As in `umap`.

    Raises
    ------
    ValueError
        If genes differ.
    """
    _check_cells(predicted, observed, control)
    sides = _expressions(predicted, observed, control, layer)
    trio = Trio(*map(moments, sides))
    top = metrics.de_genes(trio.observed, trio.control, min(metrics.N_TOP, observed.n_vars))
    if ax is None:
        _, ax = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
    x, y = trio.predicted.mean, trio.observed.mean
    ax.scatter(x, y, s=5, color="0.7", label=f"all genes: R2 = {metrics.r2_of_means(trio):.3f}")
    ax.scatter(x[top], y[top], s=9, color="C0", label=f"top {len(top)}: R2 = {metrics.r2_of_means(trio, top):.3f}")
    ax.axline((0, 0), slope=1, lw=0.8, color="0.4")
    _name(ax, x, y, top[:n_names], observed.var_names)
    ax.set(xlabel="predicted mean", ylabel="real mean")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    finish(show, save, ax)
    return ax


def _name(ax: Axes, x: np.ndarray, y: np.ndarray, genes: np.ndarray, names: pd.Index) -> None:
    """Write names of genes beside their points, away from the diagonal, and above one another where points are near."""
    across, line = 0.04 * np.ptp(x), 0.035 * np.ptp(y)
    for side, sign, chosen in (("right", -1, genes[y[genes] >= x[genes]]), ("left", 1, genes[y[genes] < x[genes]])):
        height = -np.inf
        for gene in chosen[np.argsort(y[chosen])]:
            height = max(y[gene], height + line)
            ax.annotate(
                names[gene], (x[gene], y[gene]), (x[gene] + sign * across, height), fontsize=7, ha=side, va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.4", "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip


def perturbed_latent(
    model: "LatentModel",
    predicted: AnnData,
    observed: AnnData,
    control: AnnData,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """UMAP of one latent space with control, predicted and really stimulated cells.

    Parameters
    ----------
    model
        The model that predicted: it encodes the real cells; the place of the predicted ones is in their ``.obsm``.
    predicted
        From ``predict`` of a `mixvi.perturb.Shift`.
    observed, control, ax, show, save
        As in `predicted_means`.

    Raises
    ------
    ValueError
        If the predicted cells have no place in a latent space, or genes of the others are not the model's.
    """
    check_given(model, "get_latent_representation", "the latent space of a trained model")
    check_given(predicted, "obsm", "AnnDatas of predicted, real and control cells")
    if "X_mixvi" not in predicted.obsm:
        raise ValueError("The predicted cells have no place in .obsm['X_mixvi']; pass what Shift.predict() gives.")
    control_z, real_z = (model.get_latent_representation(cells) for cells in (control, observed))
    parts = {"control": control_z, "stimulated": real_z, "predicted": predicted.obsm["X_mixvi"]}
    cells = AnnData(np.concatenate(list(parts.values())))
    cells.obs["cells"] = pd.Categorical(np.repeat(list(parts), [len(z) for z in parts.values()]), list(parts))
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.umap(cells)
    if ax is None:
        _, ax = plt.subplots(figsize=(5.4, 4), layout="constrained")
    sc.pl.umap(cells, color="cells", palette=COLORS, ax=ax, show=False, frameon=False, title="latent space", alpha=0.7)
    finish(show, save, ax)
    return ax


def gene_violin(
    gene: str,
    predicted: AnnData,
    observed: AnnData,
    control: AnnData,
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Values of a gene in control, predicted and really stimulated cells.

    Parameters
    ----------
    gene
        Its name.
    predicted, observed, control, layer, ax, show, save
        As in `predicted_means`.

    Raises
    ------
    ValueError
        If there is no such gene, or genes differ.
    """
    _check_cells(predicted, observed, control)
    if gene not in observed.var_names:
        raise ValueError(
            f"There is no gene {gene!r}; there are {observed.n_vars:,}, such as {list(observed.var_names[:3])}."
        )
    j = observed.var_names.get_loc(gene)
    x = _expressions(predicted, observed, control, layer)
    values = {name: x[i][:, j] for name, i in (("control", 2), ("predicted", 0), ("stimulated", 1))}
    if ax is None:
        _, ax = plt.subplots(figsize=(3.6, 3), layout="constrained")
    bodies = ax.violinplot(list(values.values()), showmeans=True, showextrema=False)
    for body, name in zip(bodies["bodies"], values, strict=True):
        body.set(facecolor=COLORS[name], alpha=0.8)
    ax.set(xticks=range(1, 4), ylabel="expression", title=gene)
    ax.set_xticklabels(values)
    finish(show, save, ax)
    return ax


def _check_cells(*several: AnnData) -> None:
    for cells in several:
        check_given(cells, "var_names", "AnnDatas of predicted, real and control cells")
        if not np.array_equal(cells.var_names, several[0].var_names):
            raise ValueError("Predicted, real and control cells have different genes; subset them to the same ones.")


def _expressions(predicted: AnnData, observed: AnnData, control: AnnData, layer: str | None) -> list[np.ndarray]:
    counts = is_counts(observed, layer) or is_counts(control, layer)
    return [expression(predicted, counts=False), *(expression(cells, layer, counts) for cells in (observed, control))]
