"""Pictures of the report."""

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import torch

from mixvi import pl
from mixvi.model._held_out import counts_of
from mixvi.model._qc import levels_of
from mixvi.pl._figure import literal
from mixvi.report._page import Picture, picture

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

MAX_PICTURED = 10_000  # in a picture; UMAP takes a minute for 100,000, and points would cover each other
N_PICTURED_MARKERS = 3  # genes of each cluster


def some_cells(model: "GMVAE", table: pd.DataFrame, batch_key: str | None) -> ad.AnnData:
    """At most 10,000 random cells, with cluster, confidence, batch and latent means.

    Parameters
    ----------
    model
        Trained GMVAE.
    table
        (n, K) probability of each cluster.
    batch_key
        Column of ``.obs`` to take along.

    Returns
    -------
    An AnnData of latent means, annotated under the key ``"mixvi"``; it shares nothing with the model's.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:MAX_PICTURED])
    p = table.to_numpy()[rows]
    obs = pd.DataFrame(index=table.index[rows])
    obs["mixvi"] = pd.Categorical.from_codes(p.argmax(1), list(table))
    obs["mixvi_confidence"] = p.max(1)
    if batch_key is not None:
        obs["batch"] = pd.Categorical(levels_of(model.adata.obs[batch_key])[rows])
    latent = model.get_latent_representation(indices=rows)
    cells = ad.AnnData(latent, obs=obs)
    cells.obsm["X_mixvi"] = latent
    cells.uns["rows"] = rows
    return cells


def umap(cells: ad.AnnData) -> Picture:
    """Clusters, confidence and batches of some cells on a UMAP."""
    with literal():
        axes = pl.umap(cells, labels="batch" if "batch" in cells.obs else None, show=False)
        return picture(axes[0], "UMAP of the latent space, coloured by cluster and by confidence")


def tree(model: "GMVAE", n_clusters: int) -> Picture:
    """The tree over the clusters."""
    with literal():
        return picture(pl.tree(model, n_clusters, show=False), "Tree over the clusters, with the worth of each split")


def dots(model: "GMVAE", cells: ad.AnnData, markers: dict[str, list[str]]) -> Picture | None:
    """Dot plot of the best of these markers, by cluster; ``None`` if there are none."""
    genes = {
        name: markers[name][:N_PICTURED_MARKERS] for name in cells.obs["mixvi"].cat.categories if markers.get(name)
    }
    if not genes:
        return None
    names = list(dict.fromkeys(gene for group in genes.values() for gene in group))
    columns = [list(model.get_var_names().astype(str)).index(name) for name in names]
    counts = counts_of(model, cells.uns["rows"]).x
    total = np.maximum(np.asarray(counts.sum(1)), 1).reshape(-1, 1)
    values = np.log1p(counts[:, columns].toarray() / total * np.median(total))
    drawn = ad.AnnData(values.astype(np.float32), obs=cells.obs[["mixvi"]], var=pd.DataFrame(index=names))
    drawn.obs["mixvi"] = drawn.obs["mixvi"].cat.remove_unused_categories()
    with literal():
        figure = sc.pl.dotplot(drawn, genes, "mixvi", standard_scale="var", show=False, return_fig=True)
        figure.make_figure()
        return picture(figure.get_axes()["mainplot_ax"], "Dot plot of marker genes in each cluster")


def confidence(table: pd.DataFrame) -> Picture:
    """Histogram of the confidence of all cells."""
    _, ax = plt.subplots(figsize=(5.5, 2.6), layout="constrained")
    ax.hist(table.to_numpy().max(1), bins=40, range=(0.0, 1.0), color="0.35")
    ax.set(xlabel="probability of the likeliest cluster", ylabel="cells", xlim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    return picture(ax, "Histogram of the confidence of the cells")


def batches(cells: ad.AnnData) -> Picture:
    """Share of each batch in each cluster."""
    share = pd.crosstab(cells.obs["mixvi"], cells.obs["batch"], normalize="index")
    share.columns = [f"\u200b{name}" for name in share.columns]  # matplotlib leaves out names that start with _
    with literal():
        _, ax = plt.subplots(figsize=(7, 0.8 + 0.3 * len(share)), layout="constrained")
        share[::-1].plot.barh(stacked=True, ax=ax, width=0.8, colormap="tab20")
        ax.set(xlabel="share of the cells", ylabel="cluster", xlim=(0, 1))
        ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        ax.spines[["top", "right"]].set_visible(False)
        return picture(ax, "Share of each batch in each cluster")


def predictive(model: "GMVAE", rows: np.ndarray) -> tuple[Picture, np.ndarray]:
    """Posterior predictive check: share of zeros and variance of each gene, observed and as the model draws them.

    Parameters
    ----------
    model
        Trained on counts.
    rows
        (m,) rising row numbers of the cells to look at.

    Returns
    -------
    The picture, and (2, 2, g): for the share of zeros and the variance, the observed and the drawn values.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = model.posterior_predictive_sample(indices=rows).todense()
    seen = counts_of(model, rows).x.toarray()
    found = np.array([[(x == 0).mean(0) for x in (seen, drawn)], [x.var(0) for x in (seen, drawn)]])
    _, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    for ax, (x, y), name in zip(axes, found, ("share of zeros", "variance"), strict=True):
        shown = slice(None) if name == "share of zeros" else (x > 0) & (y > 0)
        ax.plot(x[shown], y[shown], ".", ms=3, color="0.35", rasterized=True)
        ax.axline((1, 1), slope=1, color="C1", lw=1)
        ax.set(xlabel=f"{name}, observed", ylabel=f"{name}, drawn from the model")
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].set(xscale="log", yscale="log")
    return picture(axes[0], "Share of zeros and variance of each gene, observed and drawn from the model"), found


def training(model: "GMVAE") -> Picture:
    """Bound and its terms by epoch."""
    return picture(pl.training(model, show=False)[0], "Negative evidence bound and its terms by epoch")
