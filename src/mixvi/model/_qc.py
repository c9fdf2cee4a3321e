"""Quality control of clusters: a method of a GMVAE, which takes it from here."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixvi._checks import check_whole
from mixvi.cluster.doublets import doublets
from mixvi.cluster.evidence import Evidence
from mixvi.data import check_present
from mixvi.model._held_out import held_out_counts

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

ONE_BATCH = 0.95  # share of a cluster's cells in one batch
SHALLOW = 0.1  # quantile of all library sizes, below which the median of a shallow cluster lies
UNSURE = 0.5  # mean confidence, below which most cells could as well be in another cluster


def cluster_qc(model: "GMVAE", batch_key: str | None = None, n_clusters: int | None = None) -> pd.DataFrame:
    """Quality control of each cluster: what could explain it other than a cell type.

    Doublets, shallow cells, one batch, and several types in one cluster are named. A name is a reason to look, not a
    verdict.

    Parameters
    ----------
    batch_key
        Column of ``.obs`` with batches; ``None`` takes the registered one, if there is one.
    n_clusters
        Where to cut the tree; ``None`` where the model does.

    Returns
    -------
    One row for each cluster:

    ===================  ===========================================================================================
    ``cells``            number of cells
    ``confidence``       mean probability of the cluster, of its cells
    ``library``          median library size; nan without counts
    ``batch``            the most frequent batch
    ``batch_share``      its share of the cells
    ``doublet_of``       the two clusters whose sum is most like this one
    ``doublet_worth``    nats a cell by which held-out counts tell the cluster from this sum
    ``inside``           the largest worth of a significant split inside the cluster, in nats a cell
    ``faults``           list of sentences; empty if nothing was found
    ===================  ===========================================================================================

    Raises
    ------
    ValueError
        If the model has no clusters or was loaded without its cells.
    KeyError
        If there is no such column.
    """
    clusters = model._clusters()
    check_whole("n_clusters", n_clusters, none="that of the model")
    n_clusters = n_clusters or model.n_clusters
    batch_key = batch_key or model.registry_["setup_args"]["batch_key"]
    table = model.predict(soft=True, n_clusters=n_clusters)
    if batch_key is not None:
        check_present(model.adata.obs, [batch_key])
    names, p = list(table), table.to_numpy()
    own = p.argmax(1)
    found = pd.DataFrame(index=pd.Index(names, name="cluster"))
    found["cells"] = np.bincount(own, minlength=len(names))
    found["confidence"] = [p[own == k, k].mean() if (own == k).any() else np.nan for k in range(len(names))]
    found["library"] = np.nan
    _add_batches(found, own, None if batch_key is None else model.adata.obs[batch_key].astype(str).to_numpy())
    _add_doublets(found, model, n_clusters)
    leaves, tree = clusters.tree.leaves(), clusters.tree
    found["inside"] = np.nan
    for name, group in zip(names, clusters.groups(n_clusters), strict=True):
        inside = [j for j in range(len(tree.pairs)) if set(leaves[tree.n_leaves + j]) <= set(group)]
        worth = [tree.worth[j] for j in inside if tree.supported[j]]
        found.loc[name, "inside"] = max(worth, default=np.nan)
    least = clusters.tree.min_worth if clusters.tree.min_worth > 0 else model._min_worth
    found["faults"] = [_faults(row, least, batch_key, found.attrs) for _, row in found.iterrows()]
    return found


def _add_batches(found: pd.DataFrame, own: np.ndarray, batch: np.ndarray | None) -> None:
    """The most frequent batch of each cluster, its share there, and its share of all cells."""
    found["batch"], found["batch_share"], found["batch_expected"] = "", np.nan, np.nan
    if batch is None:
        return
    counts = pd.crosstab(own, batch).reindex(range(len(found)), fill_value=0)
    share = counts.div(np.maximum(counts.sum(axis=1), 1), axis=0)
    most = share.idxmax(axis=1)
    found["batch"] = most.to_numpy()
    found["batch_share"] = share.max(axis=1).to_numpy()
    found["batch_expected"] = (counts.sum() / counts.to_numpy().sum())[most].to_numpy()


def _add_doublets(found: pd.DataFrame, model: "GMVAE", n_clusters: int) -> None:
    """Library size of each cluster, and the two clusters whose sum it could be."""
    clusters = model._clusters()
    found["doublet_of"], found["doublet_worth"], found["is_larger"] = "", np.nan, False
    if not len(clusters.overdispersion):
        return
    counts, stratum, halves = held_out_counts(model, "cluster_qc()")
    evidence = Evidence(halves, clusters.overdispersion, stratum)
    library = np.asarray(counts.sum(1)).ravel()
    found.attrs["shallow"] = float(np.quantile(library, SHALLOW))
    cells = [np.flatnonzero(np.isin(clusters.part, group)) for group in clusters.groups(n_clusters)]
    some = [k for k, rows in enumerate(cells) if len(rows)]  # a class may have no training cell
    median = np.array([np.median(library[cells[k]]) for k in some])
    found.loc[found.index[some], "library"] = median
    for k, pair in zip(some, doublets(evidence, [evidence.group(cells[k]) for k in some], median), strict=True):
        if pair is not None:
            name, parents = found.index[k], [found.index[some[parent]] for parent in pair.parents]
            found.loc[name, "doublet_of"] = " and ".join(parents)
            found.loc[name, ["doublet_worth", "is_larger"]] = pair.gain.worth, pair.is_larger


def _faults(row: pd.Series, least: float, batch_key: str | None, facts: dict) -> list[str]:
    """Sentences on what could explain a cluster other than a cell type."""
    found = []
    if row["doublet_worth"] < least and row["is_larger"]:
        found.append(
            f"may be doublets of clusters {row['doublet_of']}: its counts look like the sum of both "
            f"({row['doublet_worth']:.1f} nats a cell apart), and its library size is not smaller than theirs."
        )
    if row["batch_share"] >= ONE_BATCH and row["batch_share"] > (1 + row["batch_expected"]) / 2:
        found.append(
            f"may be an effect of {batch_key}: {row['batch_share']:.0%} of its cells are from {row['batch']!r}, which "
            f"has {row['batch_expected']:.0%} of all cells."
        )
    if row["library"] < facts.get("shallow", 0):
        found.append(f"may be cells of low quality: their median library size is {row['library']:,.0f} counts.")
    if row["inside"] >= least:
        found.append(f"may hold several types: a split inside is worth {row['inside']:.0f} nats a cell.")
    if row["confidence"] < UNSURE:
        found.append(f"is not sure: the mean confidence of its cells is {row['confidence']:.2f}.")
    return found
