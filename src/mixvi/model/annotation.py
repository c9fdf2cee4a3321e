"""What a model writes into an AnnData: a method of `LatentModel`, which takes it from here."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import settings

from mixvi._checks import check_number
from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.data import annotation_keys, check_free, file_names, own_keys
from mixvi.model import description
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
) -> None:
    """Write what the model found into an AnnData. It is the one method that does.

    ========================================  ==================================================================
    ``.obsm["X_mixvi"]``                      latent means (n, d), for ``sc.pp.neighbors(use_rep="X_mixvi")``
    ``.obs["mixvi"]``                         cluster of each cell, categorical; 0 is the largest
    ``.obsm["mixvi_probabilities"]``          GMVAE: probability of each cluster (n, K), rows sum to 1
    ``.obs["mixvi_confidence"]``              GMVAE: the largest of them
    ``.obs["mixvi_entropy"]``                 GMVAE: their entropy, in nats
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
        Of Leiden.
    n_clusters
        GMVAE: cut the tree of clusters into so many; ``None`` takes those of ``predict()``.

    Raises
    ------
    ValueError
        If a column to be written exists and is not mixvi's own.
    """
    if clustering not in (None, "leiden"):
        raise ValueError(f"clustering={clustering!r} is not known; it is None or 'leiden'.")
    if clustering and n_clusters is not None:
        raise ValueError(
            "n_clusters= cuts the tree of a GMVAE, and clustering='leiden' does not use it; pass one of them."
        )
    check_number("resolution", resolution, above=0)
    if clustering is None and resolution != 1:
        raise ValueError(f"resolution={resolution} belongs to Leiden; pass clustering='leiden' too, or n_clusters=.")
    check_trained(model)
    target = model.adata if adata is None else adata
    if target is not None:  # else the next line says that there are no cells
        check_free(target, key_added)
    latent, table = model._encode(adata, n_clusters)
    obs, obsm = {}, {f"X_{key_added}": latent}
    if clustering == "leiden":
        codes = leiden(shared_neighbors(latent), resolution, settings.seed or 0)
        obs[key_added] = pd.Categorical.from_codes(codes, [str(k) for k in range(codes.max() + 1)])
    elif table is not None:
        p = table.to_numpy()
        obs[key_added] = pd.Categorical.from_codes(p.argmax(1), table.columns)
        obs[f"{key_added}_confidence"] = p.max(1)
        obs[f"{key_added}_entropy"] = -np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0.0).sum(1)
        obsm[f"{key_added}_probabilities"] = table.set_axis(file_names(table.columns), axis=1)
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
