"""Checks of ``init`` and ``n_clusters`` of a GMVAE."""

import logging
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS

from mixvi.train import INITS

logger = logging.getLogger(__name__)

OTHER = ("array", "function")  # what a saved model calls those that it does not hold

Init = str | Sequence | np.ndarray | Callable[[np.ndarray], np.ndarray] | None


def check_init(init: Init, adata: AnnData | None, n_clusters: int | None, n_labels: int, is_loaded: bool = False):
    """The choice as `mixvi.train.MixturePhases` takes it: a name, parts (n,) as numbers, a function, or ``None``.

    Parameters
    ----------
    init
        What the user passed.
    adata
        Cells of the model; ``None`` if it was loaded without.
    n_clusters
        Number of clusters that is wanted.
    n_labels
        Number of labelled classes.
    is_loaded
        Whether a saved model is loaded, perhaps with cells that lack the column.

    Raises
    ------
    ValueError
        If it is not known, or does not go with the labels or the number of clusters.
    """
    if init is None or callable(init) or adata is None or (isinstance(init, str) and init in OTHER):
        return init
    if isinstance(init, str) and init not in INITS:
        if init not in adata.obs and is_loaded:
            return init
        if init not in adata.obs:
            near = get_close_matches(init, [*INITS, *map(str, adata.obs)], 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"init={init!r} is not known; it is one of {list(INITS)}, a column of .obs, an array with one part for "
                f"each cell, or a function{hint}"
            )
        init = np.asarray(adata.obs[init])
    if n_labels and not (isinstance(init, str) and init in ("leiden", "vat")):
        raise ValueError(f"init={name_of(init)!r} makes no use of labels; with labels_key it is 'leiden' or 'vat'.")
    if not isinstance(init, str):
        codes, _ = pd.factorize(np.atleast_1d(np.asarray(init)))
        if codes.shape != (adata.n_obs,) or (codes < 0).any():
            raise ValueError(
                f"init gives parts to {(codes >= 0).sum():,} cells; it must give one to each of {adata.n_obs:,}."
            )
        return codes
    if init == "vat" and not n_labels:
        raise ValueError("init='vat' learns from labels, and there are none; name their column as labels_key.")
    if init in ("n2d", "imsat") and n_clusters is None:
        raise ValueError(f"init={init!r} cannot infer the number of clusters; pass n_clusters, or init='leiden'.")
    return init


def check_n_clusters(
    n_clusters: int | None, n_labels: int, registry: dict[str, Any], adata: AnnData | None, is_loaded: bool = False
) -> int | None:
    """The number of clusters that is wanted, or ``None`` to infer it; with labels that of the classes.

    Parameters
    ----------
    n_clusters
        What the user passed.
    n_labels
        Number of labelled classes.
    registry
        Registry of the model.
    adata
        Cells of the model; ``None`` if it was loaded without.
    is_loaded
        Whether a saved model is loaded, perhaps with fewer cells.

    Raises
    ------
    ValueError
        If it is not between 1, or the number of classes, and the number of cells.
    """
    if n_clusters is None:
        if n_labels and adata is not None:
            logger.info(
                "GMVAE takes the classes of .obs[%r] (%d) as the only clusters. Cells of other types join the most "
                "similar class. A larger n_clusters leaves room for new clusters.",
                registry["setup_args"]["labels_key"], n_labels,
            )  # fmt: skip
        return n_labels or None
    if is_loaded:
        return n_clusters
    n_cells = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["n_obs"]
    least = max(n_labels, 1)
    if isinstance(n_clusters, bool) or not isinstance(n_clusters, Integral) or not least <= n_clusters <= n_cells:
        why = " (each labelled class is a cluster)" if n_labels else ""
        raise ValueError(
            f"n_clusters={n_clusters!r}; it must be a whole number between {least}{why} and {n_cells}, the number "
            "of cells, or None to infer it from the data."
        )
    return int(n_clusters)


def name_of(init: Init) -> str | None:
    """The choice as a word that any file can hold."""
    if init is None or isinstance(init, str):
        return init
    return "function" if callable(init) else "array"
