"""Partitions that several views of the same cells agree on: the latent space, and counts without a model.

No one graph of cells is best on all data. Each view is partitioned on its own, a further partition is drawn from what
they agree on, another one by distance, and that one is taken whose clusters stand apart most where no model has had a
hand. Where there is the latent space alone, communities of its graph stand against the islands of its layout.
"""

import warnings
from typing import NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import OneHotEncoder

from mixvi.classes import partition_with_classes
from mixvi.cluster import FINE, by_size, communities, merge, merge_by_distance, neighbor_graph, partition
from mixvi.rare import secluded, set_apart

N_COMPONENTS = 30
THETA = 100.0  # inverse overdispersion of the null model of Pearson residuals, scanpy's default
MIN_CELLS = 100  # fewer do not bear several partitions
MAX_VALUES = 100_000_000  # of the dense residuals: 50,000 cells of 2,000 genes, 0.8 GB
ROUNDING = 1e-4  # of log-normalised counts and residuals in single precision: cells this close are alike
MAX_JUDGED = 10_000  # cells whose silhouettes are looked at, which takes all pairs of them
LAYOUT = 10  # dimensions in which islands are told apart
SIZES = (0.75, 1.0, 1.25, 1.5) * 3  # of the mixtures that tell them: share of the wanted number


class Placed(NamedTuple):
    """How n cells part."""

    part: np.ndarray  # (n,) part of each cell, -1 for none
    graph: csr_matrix  # (n, n) the neighbour graph that all views have in common
    others: list[np.ndarray]  # (n,) each: other partitions into as many parts; -1 for cells that were left out
    share_found: float | None = None  # of held-out labels


def place(
    latent: np.ndarray,
    counts: csr_matrix | None,
    labels: np.ndarray,
    n_classes: int,
    n_clusters: int | None = None,
    seed: int = 0,
    values: np.ndarray | None = None,
) -> Placed:
    """Split cells into parts for the components of a mixture.

    Parameters
    ----------
    latent
        (n, d) latent means.
    counts
        (n, g), to be partitioned beside the latent space; ``None`` leaves it at that.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes; with 0, labels are not looked at.
    n_clusters
        Number of parts; ``None`` takes the classes if there are any, and else as many as the graph shows: those that
        Leiden finds at resolution 1, merged while two of them hang together (`mixvi.cluster.merge`), and rare types
        (`mixvi.rare`), which without labels are also taken apart where a number is given.
    seed
        Of graphs, Leiden and k-means.
    values
        (n, g) what the latent space is of, to judge partitions of it in their principal components where there are no
        counts; ``None`` judges in the latent space itself.
    """
    plain = [] if counts is None or len(latent) < MIN_CELLS else count_components(counts, seed)
    views = [latent, *plain]
    graphs = [neighbor_graph(view, seed) for view in views]
    graph = sum(graphs) / len(graphs)

    def parts(k: int | None) -> tuple[np.ndarray, list[np.ndarray]]:
        if plain:
            part, others = consensus(views, graphs, plain, k, seed)
        else:
            part, others = partition(graph, k, seed), []
            if k is not None and 1 < k < len(latent) >= MIN_CELLS:
                judge = latent if values is None else principal_components(values, seed)
                others = [part, islands(latent, graph, k, seed)]
                part = max(others, key=lambda found: (found.max(), variance_ratio(found, judge)))
        others = [other for other in others if other is not part]
        part = merge(part, graph) if k is None else part
        if n_classes == 0:
            part = set_apart(part, secluded(graph, seed), graph, k)
        if k is None:
            others = [merge(other, graph, part.max() + 1) for other in others] or [_some_islands(latent, part, seed)]
        return part, others

    if n_classes == 0:
        part, others = parts(n_clusters)
        return Placed(part, graph, others)
    found = parts(n_clusters)[0] if n_clusters is not None and n_clusters > n_classes else None
    part, share_found = partition_with_classes(graph, labels, n_classes, found, seed)
    return Placed(part, graph, [], share_found)


def agreement(part: np.ndarray, others: list[np.ndarray]) -> float | None:
    """Share of cells that other partitions put into the same part, on average, when parts are matched one to one.

    ``None`` if there is no other.
    """
    tables = [contingency_matrix(part[other >= 0], other[other >= 0]) for other in others if (other >= 0).any()]
    alike = [table[linear_sum_assignment(-table)].sum() / table.sum() for table in tables]
    return np.mean(alike) if alike else None


def count_components(counts: csr_matrix, seed: int = 0) -> list[np.ndarray]:
    """Up to 30 principal components each (n, p) of log-normalised counts and of their Pearson residuals.

    None of both where the residuals, which are dense, would not fit (``MAX_VALUES``), and not one in which all cells
    are alike.

    References
    ----------
    Lause, Berens and Kobak 2021, Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data.
    """
    counts = counts[:, np.asarray(counts.sum(0)).ravel() > 0]
    n_components = min(N_COMPONENTS, min(counts.shape) - 1)
    if n_components < 2 or np.prod(counts.shape, dtype=float) > MAX_VALUES:
        return []
    log, residuals = (ad.AnnData(counts.astype(np.float32)) for _ in range(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some cells have zero counts", category=UserWarning)
        warnings.filterwarnings("ignore", message="invalid value encountered", category=RuntimeWarning)
        sc.pp.normalize_total(log, target_sum=1e4)
        sc.pp.log1p(log)
        sc.experimental.pp.normalize_pearson_residuals(residuals, theta=THETA)
    residuals.X = np.nan_to_num(residuals.X)  # of cells without a count
    differing = [view for view in (log, residuals) if (view.X.max(0) - view.X.min(0)).max() > ROUNDING]
    for view in differing:
        sc.pp.pca(view, n_comps=n_components, random_state=seed)
    return [view.obsm["X_pca"] for view in differing]


def consensus(
    views: list[np.ndarray], graphs: list[csr_matrix], judges: list[np.ndarray], n_clusters: int | None, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Leiden on each view and on what all agree on: of these, the partition with the widest silhouettes.

    What they agree on is the mean graph, each edge weighted by the squared share of the partitions, by Leiden and by
    k-means, that leave its ends together (co-association: Fred and Jain 2005). Leiden would rather split a type of many
    cells than tell two small ones that lie side by side; so, where a number is asked for, many small communities of the
    mean graph are also merged to it by the distance of their means (Ward 1963) in the views that judge. As that is next
    to asking for wide silhouettes there, these parts are taken only if they have wider ones on average and in each view
    (where the others are the communities of one view's graph: in each other view), or if there are more of them.

    Parameters
    ----------
    views
        Of n cells, (n, d) each.
    graphs
        Their neighbour graphs (n, n).
    judges
        The views in which silhouettes are looked at.
    n_clusters
        Number of parts; ``None`` takes as many as Leiden finds at resolution 1.
    seed
        Of Leiden, k-means and of the cells looked at.

    Returns
    -------
    (n,) part of each cell, 0 the largest; and the partitions of single views, by Leiden and by k-means.

    References
    ----------
    Fred and Jain 2005, Combining multiple clusterings using evidence accumulation.
    Rousseeuw 1987, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis.
    Ward 1963, Hierarchical grouping to optimize an objective function.
    """
    found = [partition(graph, n_clusters, seed) for graph in graphs]
    round_ones = [
        KMeans(part.max() + 1, n_init=10, random_state=seed).fit_predict(view)
        for view, part in zip(views, found, strict=True)
    ]
    graph = sum(graphs) / len(graphs)
    edges = graph.tocoo()
    together = np.mean([part[edges.row] == part[edges.col] for part in found + round_ones], axis=0)
    agreed = csr_matrix((edges.data * together**2, (edges.row, edges.col)), edges.shape)
    best = widest([*found, partition(agreed, n_clusters, seed)], judges, n_clusters, seed)
    if n_clusters is None:
        return best, found + round_ones
    judged = np.hstack([view / max(view.std(), 1e-300) for view in judges])
    near = merge_by_distance(communities(graph, FINE, seed), judged, n_clusters)
    if near.max() != best.max():
        return max(near, best, key=np.max), found + round_ones
    own = next((view for view, part in zip(views, found, strict=True) if part is best), None)
    gain = np.subtract(silhouettes(near, judges, seed), silhouettes(best, judges, seed))
    wider = gain.mean() > 0 and (gain[[judge is not own for judge in judges]] > 0).all()
    return near if wider else best, found + round_ones


def islands(latent: np.ndarray, graph: csr_matrix, n_clusters: int, seed: int = 0) -> np.ndarray:
    """Parts of a neighbour graph by Gaussian mixtures on its UMAP layout in ten dimensions (McConville 2021).

    One mixture depends on where it starts. So there are twelve, of some fewer components to some more, and k-means on
    the components each cell is in finds what they agree on (Wu 2015).

    Parameters
    ----------
    latent
        (n, d), from which components of the graph that nothing joins are laid out.
    graph
        (n, n) its neighbour graph.
    n_clusters
        Number of parts; of few cells, some may stay empty.
    seed
        Of all.

    Returns
    -------
    (n,) part of each cell, 0 the largest.

    References
    ----------
    McConville, Santos-Rodriguez, Piechocki and Craddock 2021, N2D: (not too) deep clustering via clustering the local
    manifold of an autoencoded embedding, ICPR.
    Wu, Liu, Xiong, Cao and Chen 2015, K-means-based consensus clustering: a unified view, IEEE TKDE.
    """
    cells = ad.AnnData(np.asarray(latent, dtype=np.float32), obsp={"connectivities": graph})
    cells.uns["neighbors"] = {
        "connectivities_key": "connectivities",
        "params": {"method": "umap", "use_rep": "X", "metric": "euclidean"},
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # umap's word on its own seed and threads
        sc.tl.umap(cells, min_dist=0.0, n_components=LAYOUT, random_state=seed)
    layout, rng = cells.obsm["X_umap"].astype(np.float64), np.random.RandomState(seed)
    sizes = np.ceil(np.multiply(SIZES, n_clusters)).astype(int).clip(max=len(layout))
    mixtures = [GaussianMixture(k, reg_covar=1e-4, random_state=rng) for k in sizes]
    said = np.column_stack([mixture.fit_predict(layout) for mixture in mixtures])
    said, row, size = np.unique(said, axis=0, return_inverse=True, return_counts=True)  # most cells are like others
    members = OneHotEncoder(sparse_output=False).fit_transform(said)
    kmeans = KMeans(min(n_clusters, len(said)), n_init=10, random_state=seed)
    return by_size(kmeans.fit_predict(members, sample_weight=size)[row.ravel()])


def _some_islands(latent: np.ndarray, part: np.ndarray, seed: int) -> np.ndarray:
    """Islands (n,), as many as there are parts, of up to `MAX_JUDGED` cells; -1 for all others, or if they are few."""
    found, n_parts = np.full(len(part), -1), part.max() + 1
    if 1 < n_parts < len(part) >= MIN_CELLS:
        some = np.random.default_rng(seed).permutation(len(part))[:MAX_JUDGED]
        found[some] = islands(latent[some], neighbor_graph(latent[some], seed), n_parts, seed)
    return found


def widest(found: list[np.ndarray], judges: list[np.ndarray], n_clusters: int | None, seed: int = 0) -> np.ndarray:
    """Of several partitions (n,), the one with the widest silhouettes, by their mean over the views that judge.

    Those with as many parts as asked for come first; ``None`` does not ask.
    """

    def rank(part: np.ndarray) -> tuple[int, float]:
        return (part.max() if n_clusters is not None else 0, np.mean(silhouettes(part, judges, seed)))

    return max(found, key=rank)


def silhouettes(part: np.ndarray, views: list[np.ndarray], seed: int = 0) -> list[float]:
    """Mean silhouette of parts (n,) in each view (n, d), of up to `MAX_JUDGED` cells; -1 where there is none."""
    some = np.random.default_rng(seed).permutation(len(part))[:MAX_JUDGED]
    if not 1 < len(np.unique(part[some])) < len(some):
        return [-1.0] * len(views)
    return [silhouette_score(view[some], part[some]) for view in views]


def variance_ratio(part: np.ndarray, view: np.ndarray) -> float:
    """Variance of a view (n, d) between parts (n,) for that within them, by degrees of freedom.

    0 of one part, or as many as cells; 1, as scikit-learn has it, where nothing varies within parts.

    References
    ----------
    Calinski and Harabasz 1974, A dendrite method for cluster analysis.
    """
    return calinski_harabasz_score(view, part) if 1 < len(np.unique(part)) < len(part) else 0.0


def principal_components(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Up to 30 principal components (n, p) of values (n, g)."""
    return PCA(min(N_COMPONENTS, *values.shape), svd_solver="randomized", random_state=seed).fit_transform(values)
