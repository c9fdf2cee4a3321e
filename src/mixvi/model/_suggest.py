"""Which cells to label next: a method of a GMVAE, which takes it from here."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import entr

from mixvi._checks import check_whole
from mixvi.model._predict import cluster_table, component_probabilities, log_responsibilities
from mixvi.model.streaming import collect

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


def suggest_labels(model: "GMVAE", n: int = 10, adata: AnnData | None = None) -> pd.DataFrame:
    """Cells to label next: typical cells of those components whose cells are least sure of their class or cluster.

    A component is a small group of similar cells, so a label for one of them helps all of them. Components are ranked
    by the sum of the entropies of their cells. The most typical cell of each is suggested; then the second of each.

    Parameters
    ----------
    n
        Number of cells to suggest, at most that of all cells.
    adata
        Cells to choose from; ``None`` is the AnnData of the model.

    Returns
    -------
    Table (n, 3) with the names of the cells as index, best first: ``"cluster"``, the likeliest one; ``"cells"``, the
    expected number of cells of the component; ``"entropy"``, what they are unsure of, summed over these cells, in nats.

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
    unsure = r.T @ entr(table.to_numpy()).sum(1)  # (K,)
    rank = np.argsort(np.argsort(-unsure, kind="stable"), kind="stable")  # of each component
    own = r.argmax(1)
    by_component = pd.DataFrame({"component": own, "r": r[np.arange(len(r)), own], "row": np.arange(len(r))})
    by_component["turn"] = by_component.groupby("component")["r"].rank(method="first", ascending=False)
    by_component["rank"] = rank[own]
    rows = by_component.sort_values(["turn", "rank"])["row"].to_numpy()[:n]
    found = {"cluster": table.columns.to_numpy()[table.to_numpy()[rows].argmax(1)], "cells": r.sum(0)[own[rows]]}
    return pd.DataFrame(found | {"entropy": unsure[own[rows]]}, names[rows])
