"""Writing of results into an AnnData: `annotate`, a method of `LatentModel`."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import entr
from scvi import settings

from mixvi._checks import check_number
from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.data import annotation_keys, check_free, file_names, own_keys
from mixvi.model import description
from mixvi.model._novelty import Novelty, check_held_out, has_held_out
from mixvi.model._outliers import is_new, new_groups
from mixvi.model.streaming import check_trained

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def annotate(
    model: "LatentModel",
    adata: AnnData | None = None,
    key_added: str = "mixvi",
    clustering: str | None = None,
    resolution: float = 1.0,
    n_clusters: int | None = None,
    new_at: float | None = None,
) -> None:
    """Write the results of the model into an AnnData. No other method changes an AnnData.

    ========================================  ==================================================================
    ``.obsm["X_mixvi"]``                      latent means (n, d), for ``sc.pp.neighbors(use_rep="X_mixvi")``
    ``.obs["mixvi"]``                         cluster of each cell, categorical; 0 is the largest
    ``.obsm["mixvi_probabilities"]``          GMVAE: probability of each cluster (n, K), rows sum to 1
    ``.obs["mixvi_confidence"]``              GMVAE: the largest of them
    ``.obs["mixvi_entropy"]``                 GMVAE: their entropy, in nats
    ``.obs["mixvi_outlier_p"]``               GMVAE: p-value of being drawn from the reference
    ``.varm["PCs_mixvi"]``                    linear AE and VAE: principal axes (g, d)
    ``.uns["mixvi"]``                         model, version, settings, setup, likelihood; GMVAE: clusters,
                                              temperature, ``"tree"`` and ``"markers"``, the best 50 of each cluster
    ========================================  ==================================================================

    Files cannot hold all names of columns. In those of the probabilities ``/`` becomes ``|``, and reserved names such
    as ``_index`` are put in quotes.

    Parameters
    ----------
    adata
        Where to write; ``None`` is the AnnData of the model. New cells need the model's genes and covariates.
    key_added
        The ``mixvi`` in the names above.
    clustering
        ``"leiden"`` clusters the latent neighbour graph with scanpy. ``None``: a GMVAE writes its own clusters,
        other models write none.
    resolution
        Resolution of Leiden.
    n_clusters
        GMVAE: cut the tree of clusters into so many; ``None`` takes those of ``predict()``.
    new_at
        GMVAE: false discovery rate at which cells are called new. Their clusters are ``"new 0"``, ``"new 1"``, ...:
        groups of new cells that are near each other. ``None`` calls no cell new.

    Raises
    ------
    ValueError
        If a column to be written exists and is not mixvi's own.
    """
    _check(model, clustering, resolution, n_clusters, new_at)
    check_trained(model)
    if new_at is not None:
        check_held_out(model)
    target = model.adata if adata is None else adata
    _check_target(model, target, key_added)
    names = model._cut(n_clusters)
    novelty = Novelty(model, adata) if names and clustering is None and has_held_out(model) else None
    parts = zip(*model._encode(adata, len(names), novelty=novelty), strict=True)
    latent, p, outlier_p = map(np.concatenate, parts)
    obs, obsm = dict[str, Any](), dict[str, Any]({f"X_{key_added}": latent})
    if clustering == "leiden":
        codes = leiden(shared_neighbors(latent), resolution, settings.seed or 0)
        obs[key_added] = pd.Categorical.from_codes(codes, [str(k) for k in range(codes.max() + 1)])
    elif names:
        by_end = columns(names, p, outlier_p)
        if new_at is not None:
            by_end[""] = _with_new(by_end, latent, new_at)
        obsm[f"{key_added}_probabilities"] = pd.DataFrame(p, target.obs_names, file_names(names))
        obs |= {f"{key_added}{end}": values for end, values in by_end.items()}
    for attribute, key in own_keys(target, key_added):  # of an earlier call
        del getattr(target, attribute)[key]
    for key, values in obs.items():
        target.obs[key] = values
    for key, values in obsm.items():
        target.obsm[key] = values
    if (axes := model._axes()) is not None:
        target.varm[f"PCs_{key_added}"] = axes
    found = {"leiden_resolution": resolution} if clustering else model._tables(n_clusters)
    keys = {"keys": ["/".join(place) for place in annotation_keys(target, key_added)]}
    target.uns[key_added] = description.settings(model) | keys | found


def _check_target(model: "LatentModel", target: AnnData | None, key_added: str) -> None:
    """Raise ``ValueError`` if results would replace columns of the user, or columns that the model reads."""
    if target is None:  # later there is an error that says so
        return
    check_free(target, key_added)
    args = model.registry_["setup_args"]
    read = [args[key] for key in ("labels_key", "batch_key", "size_factor_key")]
    read += [*(args["categorical_covariate_keys"] or []), *(args["continuous_covariate_keys"] or [])]
    taken = [key for place, key in annotation_keys(target, key_added) if place == "obs" and key in read]
    if taken and target is model.adata:
        raise ValueError(f"The model reads column .obs[{taken[0]!r}]; choose another key_added than {key_added!r}.")


def _check(
    model: "LatentModel", clustering: str | None, resolution: float, n_clusters: int | None, new_at: float | None
) -> None:
    """Raise ``ValueError`` for arguments that would be ignored."""
    if clustering not in (None, "leiden"):
        raise ValueError(f"clustering={clustering!r} is not known; it is None or 'leiden'.")
    if clustering and n_clusters is not None:
        raise ValueError(
            "n_clusters= cuts the tree of a GMVAE, and clustering='leiden' does not use it; pass one of them."
        )
    check_number("resolution", resolution, above=0)
    if clustering is None and resolution != 1:
        raise ValueError(f"resolution={resolution} belongs to Leiden; pass clustering='leiden' too, or n_clusters=.")
    if new_at is not None and (clustering or not hasattr(model, "clusters_")):
        raise ValueError(f"new_at={new_at} belongs to the clusters of a GMVAE; leave it out.")


def columns(names: list[str], p: np.ndarray, outlier_p: np.ndarray) -> dict[str, Any]:
    """Columns for ``.obs``, by the end of their name.

    Parameters
    ----------
    names
        (K,) names of the clusters.
    p
        (n, K) their probabilities.
    outlier_p
        (n,) p-values; (0,) if the model has none.
    """
    cluster = pd.Categorical.from_codes(p.argmax(1), names)
    found = {"": cluster, "_confidence": p.max(1), "_entropy": entr(p).sum(1)}
    return found | {"_outlier_p": outlier_p} if len(outlier_p) else found


def _with_new(found: dict[str, Any], latent: np.ndarray, new_at: float) -> pd.Categorical:
    """Clusters (n,), with groups of cells that are like nothing seen."""
    cluster, new = found[""], is_new(found["_outlier_p"], new_at)
    if not new.any():
        return cluster
    groups = new_groups(latent[new], list(cluster.categories), settings.seed or 0)
    names, codes = [*cluster.categories, *groups.categories], cluster.codes.astype(int)
    codes[new] = groups.codes + len(cluster.categories)
    return pd.Categorical.from_codes(codes, names)
