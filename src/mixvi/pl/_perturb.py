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

MAX_SIZE = 60  # of points, in square points
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
    """Predicted against real mean of each gene, with R2 over all genes and over those that really change most.

    Parameters
    ----------
    predicted
        Predicted cells, from ``predict`` of a `mixvi.perturb.Predictor`.
    observed
        The real stimulated cells, with the same genes.
    control
        The control cells, with the same genes.
    layer
        Layer of ``observed`` and ``control`` with the values; ``None`` is ``.X``. Counts are log-normalised.
    n_names
        Number of genes to name: those that really change most.
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
    """Write names of genes beside their points, away from the diagonal. Names of near points stand above each other."""
    across, line = 0.04 * np.ptp(ax.get_xlim()), 0.045 * np.ptp(ax.get_ylim())
    for side, sign, chosen in (("right", -1, genes[y[genes] >= x[genes]]), ("left", 1, genes[y[genes] < x[genes]])):
        height = -np.inf
        for gene in chosen[np.argsort(y[chosen])]:
            height = max(y[gene], height + line)
            ax.annotate(
                names[gene], (x[gene], y[gene]), (x[gene] + sign * across, height), fontsize=7, ha=side, va="center",
                zorder=3, bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.3},
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
    """UMAP of the latent space with control, predicted and real stimulated cells.

    Parameters
    ----------
    model
        The model that predicted. It encodes the real cells.
    predicted
        Predicted cells with their z in ``.obsm["X_mixvi"]``, from ``predict`` of a `mixvi.perturb.Shift` or
        `mixvi.perturb.Counterfactual`.
    observed
        The real stimulated cells, with the genes of the model.
    control
        The control cells, with the genes of the model.
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
        If the predicted cells have no ``.obsm["X_mixvi"]``, or the other cells do not have the genes of the model.
    """
    check_given(model, "get_latent_representation", "the latent space of a trained model")
    check_given(predicted, "obsm", "AnnDatas of predicted, real and control cells")
    if "X_mixvi" not in predicted.obsm:
        raise ValueError("The predicted cells have no .obsm['X_mixvi']; pass what Shift.predict() returns.")
    control_z, real_z = (model.get_latent_representation(cells) for cells in (control, observed))
    parts = {"control": control_z, "stimulated": real_z, "predicted": predicted.obsm["X_mixvi"]}
    cells = AnnData(np.concatenate(list(parts.values())))
    cells.obs["cells"] = pd.Categorical(np.repeat(list(parts), [len(z) for z in parts.values()]), list(parts))
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.umap(cells)
    if ax is None:
        _, ax = plt.subplots(figsize=(5.4, 4), layout="constrained")
    sc.pl.umap(
        cells,
        color="cells",
        palette=COLORS,
        ax=ax,
        show=False,
        frameon=False,
        title="latent space",
        alpha=0.7,
        size=min(120_000 / cells.n_obs, MAX_SIZE),
    )
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
    """Expression of a gene in control, predicted and real stimulated cells, as violins with the mean.

    Parameters
    ----------
    gene
        Name of the gene.
    predicted
        Predicted cells, from ``predict`` of a `mixvi.perturb.Predictor`.
    observed
        The real stimulated cells, with the same genes.
    control
        The control cells, with the same genes.
    layer
        Layer of ``observed`` and ``control`` with the values; ``None`` is ``.X``. Counts are log-normalised.
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
    bodies["cmeans"].set(color="black", lw=1.5)
    for body, name in zip(bodies["bodies"], values, strict=True):  # type: ignore[call-overload]  # they are a list
        body.set(facecolor=COLORS[name], alpha=0.8)
    ax.set(xticks=range(1, 4), ylabel="expression (line: mean)", title=gene)
    ax.set_xticklabels(values)
    finish(show, save, ax)
    return ax


def _check_cells(*several: AnnData) -> None:
    """Raise an error if something is not an AnnData, or genes differ."""
    for cells in several:
        check_given(cells, "var_names", "AnnDatas of predicted, real and control cells")
        if not np.array_equal(cells.var_names, several[0].var_names):
            raise ValueError("Predicted, real and control cells have different genes; select the same genes.")


def _expressions(predicted: AnnData, observed: AnnData, control: AnnData, layer: str | None) -> list[np.ndarray]:
    """Expression (n, g) of predicted, real and control cells on one scale."""
    counts = is_counts(observed, layer) or is_counts(control, layer)
    return [expression(predicted, counts=False), *(expression(cells, layer, counts) for cells in (observed, control))]
