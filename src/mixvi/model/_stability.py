"""Whether models that differ only in their seed find the same clusters."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi.utils import track

from mixvi._checks import check_whole
from mixvi._tell import untold
from mixvi._upstream import last_manager

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


def cluster_stability(model: "GMVAE", n_seeds: int = 5, max_epochs: int | None = None, **kwargs) -> pd.DataFrame:
    """Whether each cluster is found again by models that differ only in their seed.

    Trains ``n_seeds`` more models with the same settings on the same cells. Each cluster is compared with the most
    similar cluster of another model. The Jaccard index is the number of cells in both clusters, divided by the number
    in either; 1 means the same cells. A cluster is usually called stable at 0.75 or more. Below 0.5, it is not found
    again (Hennig 2007).

    Parameters
    ----------
    n_seeds
        Number of further models, at least one.
    max_epochs
        Epochs of each; ``None`` takes as many as this model was trained for.
    **kwargs
        Further arguments of `train`.

    Returns
    -------
    One row per cluster, ``cluster_names`` as index: ``cells``, ``mean`` and ``min`` of the Jaccard index over models.

    Raises
    ------
    ValueError
        If ``n_seeds`` is below 1, or the AnnData was registered again after this model was made.
    """
    check_whole("n_seeds", n_seeds)
    if last_manager(type(model), model.adata) is not model.adata_manager:
        raise ValueError(
            "The AnnData was registered again after this model was made, so new models would differ from it. Call "
            f"setup_anndata with these arguments, and make the model again: {model.registry_['setup_args']}."
        )
    own = pd.get_dummies(pd.Categorical(model.predict(), model.cluster_names)).to_numpy(dtype=float)  # (n, K)
    train = {"enable_progress_bar": False} | kwargs
    found = []
    for seed in track(range(1, n_seeds + 1), description="fits"):
        with torch.random.fork_rng(), untold():
            torch.manual_seed(seed)
            other = type(model)(model.adata, **model.init_params_["non_kwargs"] | {"init": model._init})
            other.train(max_epochs or len(model.history["elbo_train"]), **train)
        table = pd.get_dummies(pd.Series(other.predict())).to_numpy(dtype=float)
        both = own.T @ table
        found.append((both / (own.sum(0)[:, None] + table.sum(0) - both)).max(1))
    columns = {"cells": own.sum(0).astype(int), "mean": np.mean(found, 0), "min": np.min(found, 0)}
    return pd.DataFrame(columns, model.cluster_names)
