"""Clusters of cells under a GMVAE: methods of the class, which takes them from here."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_flag, check_whole
from mixvi.cluster.calibration import calibrated
from mixvi.model._tree import warn_of_noise
from mixvi.model.streaming import blocks, collect
from mixvi.module.cells import Cells
from mixvi.module.encoders import SCALE_FLOOR

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE
    from mixvi.model._novelty import Novelty


class Encoded(NamedTuple):
    """Results for n cells."""

    latent: np.ndarray  # (n, d) latent means
    probabilities: np.ndarray  # (n, K) of the clusters; K = 0 for a model without clusters
    outlier_p: np.ndarray  # (n,) p-values; (0,) without them


def predict(
    model: "GMVAE",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    soft: bool = False,
    batch_size: int | None = None,
    n_clusters: int | None = None,
    use_posterior_mean: bool = True,
) -> np.ndarray | pd.DataFrame:
    """Cluster of each cell; new cells are assigned without a refit.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    soft
        Return the probability of each cluster: the sum of the calibrated responsibilities of its components. A
        cell's label is not looked at.
    n_clusters
        Cut the tree into so many clusters; ``None`` cuts it where the model does.
    use_posterior_mean
        ``True`` takes the responsibilities of the whole posterior of a cell, which have no noise. ``False`` takes those
        of one draw from it.

    Returns
    -------
    (n,) cluster names; with ``soft=True`` a table (n, K) of probabilities, one row a cell, rows summing to 1.

    Raises
    ------
    ValueError
        If the tree has not so many leaves.
    """
    check_flag("use_posterior_mean", use_posterior_mean)
    of_cells = log_responsibilities(model, draws=not use_posterior_mean)
    log_r = collect(model, of_cells, adata, indices, batch_size, minified=True)
    names = (model.adata if adata is None else adata).obs_names
    table = cluster_table(model, log_r, names if indices is None else names[indices], n_clusters)
    return table if soft else table.columns.to_numpy()[table.to_numpy().argmax(1)]


def subclusters(
    model: "GMVAE",
    cluster: str,
    n_clusters: int | None = None,
    adata: AnnData | None = None,
    batch_size: int | None = None,
) -> pd.Series:
    """Look inside a cluster: the part of it that each of its cells is in, without another fit.

    Parameters
    ----------
    cluster
        Its name, or that of any node of `tree`.
    n_clusters
        Number of parts; ``None`` makes every split inside that held-out counts support, and at least the first.
    adata, batch_size
        As in `get_latent_representation`.

    Returns
    -------
    Names such as ``"3.0"``, with the names of the cells as index.

    Raises
    ------
    ValueError
        If there is no such cluster, or it cannot be split into so many parts.
    """
    tree, names = model._named_tree(), model.cluster_names
    below = tree.below(str(cluster), n_clusters)
    cells = model.adata if adata is None else adata
    log_r = collect(model, log_responsibilities(model), adata, None, batch_size, minified=True)
    p = component_probabilities(model, log_r)
    mine = np.isin(p.argmax(1), sum(below.values(), []))
    if tree.node(str(cluster)) in model._clusters().tree.nodes(model.n_clusters):
        mine = cluster_table(model, log_r, cells.obs_names, None).to_numpy().argmax(1) == names.index(str(cluster))
    parts = np.stack([p[mine][:, leaves].sum(1) for leaves in below.values()], 1)
    return pd.Series(np.array(list(below))[parts.argmax(1)], cells.obs_names[mine], name=str(cluster))


def component_probabilities(model: "GMVAE", log_r: np.ndarray) -> np.ndarray:
    """Responsibilities (n, K) of the components, calibrated where the model cuts its tree.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    log_r
        (n, at least K) log responsibilities.
    """
    if model.clusters_ is None:
        return np.exp(log_r)
    tree = model._clusters().tree
    return calibrated(log_r[:, : tree.n_leaves], tree.cut(model.n_clusters), model.module.prior.temperature.item())


def cluster_table(model: "GMVAE", log_r: np.ndarray, cells: pd.Index, n_clusters: int | None) -> pd.DataFrame:
    """Probability of each cluster (n, k), with the names of cells and clusters.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    log_r
        (n, at least K) log responsibilities of the components.
    cells
        (n,) names of the cells.
    n_clusters
        Where to cut the tree; ``None`` cuts it where the model does.
    """
    names = cut(model, n_clusters)
    return pd.DataFrame(cluster_probabilities(model, log_r, len(names)), cells, names)


def own_table(model: "GMVAE", n_clusters: int | None = None) -> pd.DataFrame:
    """Probability of each cluster (n, k) for the cells of the model.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    n_clusters
        Where to cut the tree; ``None`` cuts it where the model does.
    """
    log_r = collect(model, log_responsibilities(model), minified=True)
    return cluster_table(model, log_r, model.adata.obs_names, n_clusters)


def cut(model: "GMVAE", n_clusters: int | None) -> list[str]:
    """Names of the clusters at a cut of the tree. Splits that are noise are warned of.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    n_clusters
        Where to cut the tree; ``None`` cuts it where the model does.
    """
    check_whole("n_clusters", n_clusters, none="the number of the model")
    if model.clusters_ is None and n_clusters not in (None, 1):
        raise ValueError(f"n_clusters={n_clusters}, but this GMVAE has one cluster and no tree.")
    if model.clusters_ is None:
        return ["0"]
    n_clusters, tree = n_clusters or model.n_clusters, model._clusters().tree
    names = model._names(n_clusters)
    warn_of_noise(tree, range(tree.n_leaves - n_clusters, tree.n_leaves - 1))
    return names


def cluster_probabilities(model: "GMVAE", log_r: np.ndarray, n_clusters: int) -> np.ndarray:
    """Probability of each cluster (n, k), labelled classes first.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    log_r
        (n, at least K) log responsibilities of the components.
    n_clusters
        Where to cut the tree.
    """
    p = component_probabilities(model, log_r)
    groups = [slice(None)] if model.clusters_ is None else model._clusters().groups(n_clusters)
    return np.stack([p[:, group].sum(1) for group in groups], 1)


def log_responsibilities(model: "GMVAE", draws: bool = False) -> Callable[[Cells], Tensor]:
    """Log responsibilities (n, K) of cells, for `collect`.

    Parameters
    ----------
    model
        Trained, with or without clusters.
    draws
        Those of one draw from each posterior: of a posterior that is narrow, at that place.
    """

    def of(cells: Cells) -> Tensor:
        qz = model.module.encode(cells)
        if draws:
            qz = model.module.encoder.restored(qz.rsample(), torch.full_like(qz.scale, SCALE_FLOOR))
        return model.module.prior.log_responsibilities(qz, cells)

    return of


def encode(
    model: "GMVAE", adata: AnnData | None, n_clusters: int, indices: np.ndarray | None, novelty: "Novelty | None"
) -> Iterator[Encoded]:
    """What `annotate` writes of each cell, block by block.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; ``None`` for those of the model.
    n_clusters
        Where the tree is cut.
    indices
        (n,) row numbers; ``None`` for all cells.
    novelty
        Gives p-values; ``None`` for none.
    """

    def all_of(cells: Cells) -> Tensor:
        qz = model.module.encode(cells)
        traits = qz.loc[:, :0] if novelty is None else novelty.traits(cells)
        return torch.cat([traits, qz.loc, model.module.prior.log_responsibilities(qz, cells)], 1)

    start, ends = 0, [0 if novelty is None else 2, -model.module.prior.n_room]
    for found in blocks(model, all_of, adata, indices, None, minified=True):
        (traits, latent, log_r), end = np.split(found, ends, axis=1), start + len(found)
        rows = np.arange(start, end) if indices is None else indices[start:end]
        p = np.zeros(0) if novelty is None else novelty.p(traits, latent, rows)
        yield Encoded(latent, cluster_probabilities(model, log_r, n_clusters), p)
        start = end
