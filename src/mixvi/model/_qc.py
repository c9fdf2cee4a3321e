"""Quality control of clusters: a method of a GMVAE, which takes it from here."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mixvi._checks import check_whole
from mixvi.cluster.ambient import ambient_share
from mixvi.cluster.doublets import doublet_share, doublets
from mixvi.cluster.evidence import Evidence
from mixvi.data import check_present
from mixvi.model._held_out import held_out_counts
from mixvi.model._predict import own_table

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

ONE_BATCH = 0.95  # share of a cluster's cells in one batch
SHALLOW = 0.1  # quantile of all library sizes; the median of a shallow cluster lies below it
UNSURE = 0.5  # mean confidence; below it, most cells could as well be in another cluster
DOUBLETS, AMBIENT = 0.02, 0.1  # shares from which a warning is given; benchmarks/faults.py has what they find


class QualityControl(NamedTuple):
    """What could explain clusters other than cell types."""

    clusters: pd.DataFrame  # one row for each cluster
    doublets: float  # estimated share of cells that are doublets of two clusters; nan without counts
    ambient: float  # upper bound of the share of ambient RNA; nan without counts
    faults: list[str]  # sentences on what was found; empty if nothing was


def quality_control(model: "GMVAE", batch_key: str | None = None, n_clusters: int | None = None) -> QualityControl:
    """Look for what could explain clusters other than cell types.

    It looks for doublets, ambient RNA, clusters of shallow cells or of one batch, and several types in one cluster.
    Each finding is a reason to look again, not a proof. The table has for each cluster:

    ===================  ===========================================================================================
    ``cells``            number of cells
    ``confidence``       mean probability of the cluster, of its cells
    ``library``          median library size; nan without counts
    ``batch``            the most frequent batch
    ``batch_share``      its share of the cluster's cells
    ``batch_expected``   its share of all cells
    ``doublet_of``       the two clusters whose sum is most like this one
    ``doublet_worth``    nats per cell: held-out gain of the cluster's own profile over this sum
    ``is_larger``        whether its library is at least as large as those of both clusters
    ``inside``           the largest worth of a split inside that is as clear as those between default clusters
    ===================  ===========================================================================================

    Parameters
    ----------
    batch_key
        Column of ``.obs`` with batches; ``None`` takes the registered one, if there is one. Missing values are a level.
    n_clusters
        Number of clusters into which the tree is cut; ``None`` takes the default of the model.

    Returns
    -------
    ``faults`` has the sentences. ``clusters`` has a row for each cluster, with the columns above.

    Raises
    ------
    ValueError
        If the model has no clusters or was loaded without its cells.
    KeyError
        If there is no such column.
    """
    tree = model._clusters().tree
    check_whole("n_clusters", n_clusters, none="that of the model")
    n_clusters = n_clusters or model.n_clusters
    batch_key = batch_key or model.registry_["setup_args"]["batch_key"]
    table = own_table(model, n_clusters)
    if batch_key is not None:
        check_present(model.adata.obs, [batch_key])
    own = table.to_numpy().argmax(1)
    confidence = pd.Series(table.to_numpy().max(1)).groupby(own).mean()
    found = pd.DataFrame(index=pd.Index(list(table), name="cluster"))
    found["cells"] = np.bincount(own, minlength=len(found))
    found["confidence"] = confidence.reindex(range(len(found))).to_numpy()
    _add_batches(found, own, None if batch_key is None else levels_of(model.adata.obs[batch_key]))
    shares = _add_counts(found, model, n_clusters)
    least = tree.min_worth if tree.min_worth > 0 else model._min_worth
    found["inside"] = _inside(model, n_clusters, least)
    faults = _faults_of_all(*shares)
    for name, row in found.drop(columns="shallow").iterrows():
        faults += [f"Cluster {name} {text}" for text in _faults(row, found["shallow"].iloc[0], least, batch_key)]
    return QualityControl(found.drop(columns="shallow"), *shares, faults)


def levels_of(column: pd.Series) -> np.ndarray:
    """Level of each cell (n,) as text; cells without one are ``"missing"``."""
    return column.astype(object).where(column.notna(), "missing").astype(str).to_numpy()


def _add_batches(found: pd.DataFrame, own: np.ndarray, batch: np.ndarray | None) -> None:
    """The most frequent batch of each cluster, its share there, and its share of all cells."""
    found["batch"], found["batch_share"], found["batch_expected"] = "", np.nan, np.nan
    if batch is None:
        return
    counts = pd.crosstab(own, batch)
    share = counts.div(counts.sum(axis=1), axis=0)
    most = share.idxmax(axis=1)
    names = found.index[counts.index]  # a cluster can have no cell
    found.loc[names, "batch"], found.loc[names, "batch_share"] = most.to_numpy(), share.max(axis=1).to_numpy()
    found.loc[names, "batch_expected"] = (counts.sum() / len(own))[most].to_numpy()


def _add_counts(found: pd.DataFrame, model: "GMVAE", n_clusters: int) -> tuple[float, float]:
    """Libraries and possible parents of each cluster; the shares of doublets and of ambient RNA of all cells."""
    clusters = model._clusters()
    found["library"], found["doublet_of"], found["doublet_worth"], found["is_larger"] = np.nan, "", np.nan, False
    found["shallow"] = -np.inf
    if not len(clusters.overdispersion):
        return np.nan, np.nan
    counts, stratum, halves = held_out_counts(model, "quality_control()")
    evidence = Evidence(halves, clusters.overdispersion, stratum)
    library = np.asarray(counts.sum(1)).ravel()
    found["shallow"] = np.quantile(library, SHALLOW)
    cells = [np.flatnonzero(np.isin(clusters.part, group)) for group in clusters.groups(n_clusters)]
    some = [k for k, rows in enumerate(cells) if len(rows)]  # a class may have no training cell
    names, groups = found.index[some], [evidence.group(cells[k]) for k in some]
    median = np.array([np.median(library[cells[k]]) for k in some])
    found.loc[names, "library"] = median
    for name, pair in zip(names, doublets(evidence, groups, median), strict=True):
        if pair is not None:
            found.loc[name, "doublet_of"] = " and ".join(names[parent] for parent in pair.parents)
            found.loc[name, "doublet_worth"] = pair.gain.worth
            found.loc[name, "is_larger"] = pair.is_larger
    part = np.full(len(library), -1)
    for number, k in enumerate(some):
        part[cells[k]] = number
    share = doublet_share(evidence, counts, part, median, clusters.seed)
    held_out = np.stack([np.asarray(group.held_out.sum(0)).ravel() for group in groups])
    return share, ambient_share(np.stack([group.seen.sum(0) for group in groups]), held_out)


def _inside(model: "GMVAE", n_clusters: int, min_worth: float) -> list[float]:
    """The largest worth of a clear split inside each cluster; nan if there is none."""
    tree, found = model._clusters().tree, []
    below, clear = tree.leaves()[tree.n_leaves :], tree.clear(min_worth)
    for group in model._clusters().groups(n_clusters):
        inside = [j for j, leaves in enumerate(below) if set(leaves) <= set(group)]
        found.append(max((tree.worth[j] for j in inside if clear[j]), default=np.nan))
    return found


def _faults_of_all(doublet: float, ambient: float) -> list[str]:
    found = []
    if doublet >= DOUBLETS:
        found.append(
            f"About {doublet:.1%} of the cells look like doublets of two clusters: they have the sum of two profiles, "
            "and a large library. Remove doublets before clustering."
        )
    if ambient >= AMBIENT:
        found.append(
            f"Up to {ambient:.0%} of the counts may be ambient RNA: genes of some clusters are found at this rate in "
            "all others. Remove it before you compare expression."
        )
    return found


def _faults(row: pd.Series, shallow: float, least: float, batch_key: str | None) -> list[str]:
    """What could explain a cluster other than a cell type."""
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
    if row["library"] < shallow:
        found.append(f"may be cells of low quality: their median library size is {row['library']:,.0f} counts.")
    if row["inside"] > 0:
        found.append(f"may hold several types: a split inside is worth {row['inside']:.0f} nats a cell.")
    if row["confidence"] < UNSURE:
        found.append(f"is not sure: the mean confidence of its cells is {row['confidence']:.2f}.")
    return found
