"""What ``init`` of a GMVAE may be: checked, and named for files."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd
from anndata import AnnData

from mixvi.train import INITS

OTHER = ("array", "function")  # what a saved model calls those that it does not hold

Init = str | Sequence | Callable[[np.ndarray], np.ndarray] | None


def check_init(init: Init, adata: AnnData | None, n_clusters: int | None, n_labels: int):
    """The choice as `mixvi.train.MixturePhases` takes it: a name, parts (n,) as numbers, a function, or ``None``.

    Raises
    ------
    ValueError
        If it is not known, or does not go with the labels or the number of clusters.
    """
    if init is None or callable(init) or adata is None or (isinstance(init, str) and init in OTHER):
        return init
    if isinstance(init, str) and init not in INITS:
        if init not in adata.obs:
            near = get_close_matches(init, [*INITS, *map(str, adata.obs)], 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"init={init!r} is not known; it is one of {list(INITS)}, a column of .obs, an array with one part for "
                f"each cell, or a function{hint}"
            )
        init = adata.obs[init]
    if n_labels and not (isinstance(init, str) and init in ("leiden", "vat")):
        raise ValueError(f"init={name_of(init)!r} makes no use of labels; with labels_key it is 'leiden' or 'vat'.")
    if not isinstance(init, str):
        codes, _ = pd.factorize(np.asarray(init))
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


def name_of(init: Init) -> str | None:
    """The choice as a word that any file can hold."""
    if init is None or isinstance(init, str):
        return init
    return "function" if callable(init) else "array"
