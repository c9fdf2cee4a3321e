"""Marker genes of the clusters of a model."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixvi._checks import check_whole
from mixvi._warnings import warn
from mixvi.cluster.markers import Markers
from mixvi.cluster.markers import markers as markers_between
from mixvi.model._held_out import held_out_counts

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

N_LISTED_MARKERS = 5  # genes of each cluster in a summary


def markers(model: "GMVAE", n_clusters: int | None = None, versus: str = "both") -> pd.DataFrame:
    """Marker genes of each cluster, tested on counts that took no part in finding the clusters.

    Testing the counts that clusters were found in gives p-values that are far too small. Here each count was split
    in two independent parts under the model's negative binomial (Neufeld 2023): one found the clusters, the other
    is tested. Of data with batches or covariates, only differences within them count.

    Parameters
    ----------
    n_clusters
        Where to cut the tree; ``None`` where the model does.
    versus
        ``"rest"`` compares with all other cells, ``"sibling"`` with the cluster's sister in the tree.

    Returns
    -------
    One row for each cluster, comparison and gene. Genes that are higher in the cluster come first, then those that
    are lower, the most significant first: ``cluster``, ``versus``, ``gene``,
    ``log2_fold_change``, ``detection`` and ``detection_other`` (shares of cells with a count), ``p`` and ``q``
    (false discovery rate over genes). A cluster without training cells, such as a class that only validation cells
    have, has no rows.

    Raises
    ------
    ValueError
        If the values are not counts, there is one cluster, or the model was loaded without its data.
    """
    clusters = model._clusters()
    check_whole("n_clusters", n_clusters, none="that of the model")
    n_clusters = n_clusters or model.n_clusters
    if versus not in ("both", "rest", "sibling"):
        raise ValueError(f"versus={versus!r} is not known; it is 'both', 'rest' or 'sibling'.")
    if not len(clusters.overdispersion):
        raise ValueError(f"Markers are tested on counts, and the likelihood is {model.likelihood_!r}.")
    if n_clusters < 2:
        raise ValueError("There is one cluster only, so it has no markers; pass a larger n_clusters.")
    if clusters.n_classes or clusters.init in ("array", "function"):
        warn("p and q are too small if labels or init were made from these counts.")
    counts, stratum, halves = held_out_counts(model, "markers()")
    tree, below, tables = clusters.tree, clusters.tree.leaves(), []
    groups, names = clusters.groups(n_clusters), model._names(n_clusters)
    sisters = {sorted_(below[a]): below[b] for pair in tree.pairs for a, b in (pair, pair[::-1])}
    for name, group in zip(names, groups, strict=True):
        mine = np.isin(clusters.part, group)
        others = {"rest": ~mine & (clusters.part >= 0), "sibling": np.isin(clusters.part, sisters[sorted_(group)])}
        for kind, other in others.items():
            if versus not in ("both", kind) or not mine.any() or not other.any():
                continue
            found = markers_between(halves, np.flatnonzero(mine), np.flatnonzero(other), stratum, detected=counts)
            table = pd.DataFrame(found._asdict())
            table.insert(0, "gene", model.get_var_names().astype(str))
            table.insert(0, "versus", kind)
            table.insert(0, "cluster", name)
            lower = table["log2_fold_change"] <= 0
            order = np.lexsort([-table["log2_fold_change"], table["p"], lower])
            tables.append(table.iloc[order])
    if not tables:
        return pd.DataFrame(columns=["cluster", "versus", "gene", *Markers._fields])
    return pd.concat(tables, ignore_index=True)


def best_markers(model: "GMVAE", n_clusters: int, n_markers: int = N_LISTED_MARKERS) -> dict[str, list[str]]:
    """Genes of each cluster that are higher in it than in the rest and than in its sibling, the best first.

    Parameters
    ----------
    model
        Trained GMVAE.
    n_clusters
        Where to cut the tree.
    n_markers
        Number of genes of each cluster, at most.

    Returns
    -------
    Genes by name of the cluster. Empty without counts, with one cluster, or without the cells of the training.
    """
    clusters = model.clusters_
    has_counts = clusters is not None and len(clusters["overdispersion"])
    if n_markers == 0 or n_clusters < 2 or not has_counts or model.adata is None:
        return {}
    table = model.markers(n_clusters)
    table = table[table["log2_fold_change"] > 0]
    both = table.groupby(["cluster", "gene"], sort=False)["p"].agg(["size", "max"])
    both = both[both["size"] == 2].reset_index().sort_values("max", kind="stable")
    return {name: rows["gene"].head(n_markers).tolist() for name, rows in both.groupby("cluster", sort=False)}


def sorted_(leaves: list[int]) -> tuple[int, ...]:
    """Leaves as a key."""
    return tuple(sorted(leaves))
