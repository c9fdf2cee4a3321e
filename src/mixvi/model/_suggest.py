"""Suggests cells to label next: a method of `GMVAE`."""

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData
from scipy.special import entr

from mixvi._checks import check_whole
from mixvi.cluster.suggest import typical_first
from mixvi.model._predict import cluster_table, component_probabilities, log_responsibilities
from mixvi.model.streaming import collect

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


def suggest_labels(model: "GMVAE", n: int = 10, adata: AnnData | None = None) -> pd.DataFrame:
    """Cells to label next: typical cells of the components with the highest total entropy.

    A component is a small group of similar cells, so a label for one cell helps the whole group. The entropy of a cell
    is that of its class or cluster probabilities. The most typical cell of each component is suggested first, then the
    second of each.

    Parameters
    ----------
    n
        Number of cells to suggest, at most that of all cells.
    adata
        Cells to choose from; ``None`` is the AnnData of the model.

    Returns
    -------
    Table (n, 3) with the names of the cells as index, best first. ``"cluster"`` is the most probable cluster of the
    cell. ``"cells"`` is the expected number of cells of its component. ``"entropy"`` is the sum of their entropies, in
    nats.

    Raises
    ------
    ValueError
        If ``n`` is below 1 or above the number of cells, or the model has one cluster only.
    """
    log_r = collect(model, log_responsibilities(model), adata, minified=True)
    names = (model.adata if adata is None else adata).obs_names
    check_whole("n", n, most=len(names))
    if model.n_clusters < 2:
        raise ValueError("This GMVAE has one cluster, so it is sure of all cells; there is nothing to suggest.")
    r, table = component_probabilities(model, log_r), cluster_table(model, log_r, names, None)
    p = table.to_numpy()
    unsure = r.T @ entr(p).sum(1)  # (K,)
    rows = typical_first(r, unsure)[:n]
    own = r[rows].argmax(1)
    found = {"cluster": table.columns.to_numpy()[p[rows].argmax(1)], "cells": r.sum(0)[own], "entropy": unsure[own]}
    return pd.DataFrame(found, names[rows])
