"""Pictures of the report."""

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

from mixvi import pl
from mixvi.model._markers import best_markers
from mixvi.report._page import Picture, picture

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

MAX_CELLS = 10_000  # in a picture; UMAP takes a minute for 100,000, and points would cover each other
N_MARKERS = 3  # genes of each cluster


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
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:MAX_CELLS])
    p = table.to_numpy()[rows]
    obs = pd.DataFrame(index=table.index[rows])
    obs["mixvi"] = pd.Categorical.from_codes(p.argmax(1), list(table))
    obs["mixvi_confidence"] = p.max(1)
    if batch_key is not None:
        obs["batch"] = pd.Categorical(model.adata.obs[batch_key].astype(str).to_numpy()[rows])
    latent = model.get_latent_representation(indices=rows)
    cells = ad.AnnData(latent, obs=obs)
    cells.obsm["X_mixvi"] = latent
    cells.uns["rows"] = rows
    return cells


def umap(cells: ad.AnnData) -> Picture:
    """Clusters, confidence and batches of some cells on a UMAP."""
    axes = pl.umap(cells, labels="batch" if "batch" in cells.obs else None, show=False)
    return picture(axes[0], "UMAP of the latent space, coloured by cluster and by confidence")


def tree(model: "GMVAE", n_clusters: int) -> Picture:
    """The tree over the clusters."""
    return picture(pl.tree(model, n_clusters, show=False), "Tree over the clusters, with the worth of each split")


def dots(model: "GMVAE", cells: ad.AnnData, n_clusters: int) -> Picture | None:
    """Dot plot of the best markers; ``None`` if there are none."""
    genes = best_markers(model, n_clusters, N_MARKERS)
    genes = {name: genes[name] for name in cells.obs["mixvi"].cat.categories if genes.get(name)}
    if not genes:
        return None
    names = list(dict.fromkeys(gene for group in genes.values() for gene in group))
    counts = model.adata.layers[layer] if (layer := model.registry_["setup_args"]["layer"]) else model.adata.X
    counts = counts[cells.uns["rows"]]
    total = np.maximum(np.asarray(counts.sum(1), dtype=float), 1).reshape(-1, 1)
    columns = model.adata.var_names.get_indexer(names)
    chosen = counts[:, columns]
    chosen = chosen.toarray() if hasattr(chosen, "toarray") else np.asarray(chosen)
    values = np.log1p(chosen / total * np.median(total))
    drawn = ad.AnnData(values.astype(np.float32), obs=cells.obs[["mixvi"]], var=pd.DataFrame(index=names))
    drawn.obs["mixvi"] = drawn.obs["mixvi"].cat.remove_unused_categories()
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
    _, ax = plt.subplots(figsize=(7, 0.8 + 0.3 * len(share)), layout="constrained")
    share[::-1].plot.barh(stacked=True, ax=ax, width=0.8, colormap="tab20")
    ax.set(xlabel="share of the cells", ylabel="cluster", xlim=(0, 1))
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    return picture(ax, "Share of each batch in each cluster")


def training(model: "GMVAE") -> Picture:
    """Bound and its terms by epoch."""
    return picture(pl.training(model, show=False)[0], "Negative evidence bound and its terms by epoch")
