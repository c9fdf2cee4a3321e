"""Whether models that differ by their seed alone find the same clusters."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi.utils import track

from mixvi._checks import check_whole
from mixvi._tell import untold
from mixvi._upstream import is_registered

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


def cluster_stability(model: "GMVAE", n_seeds: int = 5, max_epochs: int | None = None, **kwargs) -> pd.DataFrame:
    """How far each cluster can be trusted: whether models that differ by their seed alone find it again.

    Fits ``n_seeds`` more models of the same settings to the same cells, with the arguments of `train` that are
    given here. A cluster found again has Jaccard index 1
    (cells in both over cells in either, with the most similar cluster of the other model); 0.75 is usually called
    stable, and below 0.5 a cluster dissolves (Hennig 2007).

    Parameters
    ----------
    n_seeds
        Number of further models, at least one.
    max_epochs
        Of each; ``None`` takes as many as this model was trained for.
    **kwargs
        Of `train`.

    Returns
    -------
    One row a cluster, ``cluster_names`` as index: ``cells``, ``mean`` and ``min`` of the Jaccard index over models.

    Raises
    ------
    ValueError
        If ``n_seeds`` is below 1, or the AnnData was registered anew since this model was made.
    """
    check_whole("n_seeds", n_seeds)
    if not is_registered(model):
        raise ValueError(
            "The AnnData was registered anew since this model was made, and other models would be fitted; call "
            f"setup_anndata with this model's arguments and make it anew: {model.registry_['setup_args']}."
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
