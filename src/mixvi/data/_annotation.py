"""Entries that ``annotate`` writes into an AnnData, and columns that it or a prediction copies."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

RESERVED = ("", ".", "..", "_index", "zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
LONGEST = 200  # bytes of a name that is the name of a file in a zarr store; file systems allow 255, and names get ends
USUAL = "mixvi"  # key_added by default


def own_columns(adata: AnnData, rows: np.ndarray) -> pd.DataFrame:
    """``.obs`` of some cells, without the columns of scvi-tools.

    Parameters
    ----------
    adata
        Cells.
    rows
        (m,) row numbers; they may repeat.

    Returns
    -------
    (m, ...) a copy. If names of cells repeat, all of them get a number, such as ``"AAAC-0"``.
    """
    obs = adata.obs.iloc[rows]
    obs = obs[[column for column in obs if not str(column).startswith("_scvi_")]].copy()
    if not obs.index.is_unique:
        obs.index = [f"{name}-{i}" for i, name in enumerate(obs.index)]
    return obs


def file_names(names: Sequence[str]) -> list[str]:
    """Names of columns that ``.h5ad`` and ``.zarr`` can hold: unique, short, without ``/``, and none that they reserve.

    Names that need no change keep their form.
    """
    changed = {name: name.replace("/", "|").encode(errors="ignore")[:LONGEST].decode(errors="ignore") for name in names}
    changed |= {name: f"'{name}'" for name in names if name in RESERVED}
    taken = {name for name in names if changed[name] == name}
    for name in names:
        if changed[name] != name:
            while changed[name] in taken:
                changed[name] += "'"
            taken.add(changed[name])
    return [changed[name] for name in names]


def is_writable(name: str) -> bool:
    """Whether ``.h5ad`` and ``.zarr`` can hold a column of this name."""
    return is_plain(name) and file_names([name]) == [name]


def is_plain(text: str) -> bool:
    """Whether files can hold a text: it is Unicode, and has no null character, which would end it."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def is_name(name: object) -> bool:
    """Whether something is a text with letters that files can hold."""
    return isinstance(name, str) and bool(name.strip()) and is_plain(name)


def annotation_keys(adata: AnnData, key_added: str) -> list[tuple[str, str]]:
    """Existing entries of an AnnData under the names that ``annotate`` writes to, except in ``.uns``.

    Parameters
    ----------
    adata, key_added
        Cells and name of the results, as in ``annotate``.

    Returns
    -------
    Attribute and key of each entry, such as ``("obsm", "X_mixvi")``.
    """
    places = [
        *(("obs", f"{key_added}{end}") for end in ("", "_confidence", "_entropy", "_outlier_p")),
        *(("obsm", key) for key in (f"X_{key_added}", f"{key_added}_probabilities")),
        ("varm", f"PCs_{key_added}"),
    ]
    return [(attribute, key) for attribute, key in places if key in getattr(adata, attribute)]


def own_keys(adata: AnnData, key_added: str) -> list[tuple[str, str]]:
    """Those of `annotation_keys` that an earlier ``annotate`` has written.

    Without ``.uns``, which :func:`anndata.concat` leaves out, it is all of them or none.

    Parameters
    ----------
    adata, key_added
        Cells and name of the results, as in ``annotate``.
    """
    there, uns = annotation_keys(adata, key_added), adata.uns.get(key_added)
    if uns is None and _is_complete(adata, key_added, there):
        return there
    if not isinstance(uns, Mapping) or not {"model", "version", "settings"} <= set(uns):
        return []
    return [place for place in there if "/".join(place) in set(uns["keys"])] if "keys" in uns else there


def check_free(adata: AnnData, key_added: str) -> None:
    """Check that ``annotate`` would overwrite only its own earlier results.

    Parameters
    ----------
    adata, key_added
        Cells and name of the results, as in ``annotate``.

    Raises
    ------
    ValueError
        If other data have these names, or files cannot hold them.
    """
    if not isinstance(key_added, str) or "\\" in key_added or not is_writable(key_added):
        raise ValueError(f"key_added={key_added!r} cannot be a name in a file; pass a short text without slashes.")
    uns, own = adata.uns.get(key_added, {}), own_keys(adata, key_added)
    taken = [key for attribute, key in annotation_keys(adata, key_added) if (attribute, key) not in own]
    is_own = isinstance(uns, Mapping) and (not uns or {"model", "version", "settings"} <= set(uns))
    if taken or (key_added in adata.uns and not is_own):
        raise ValueError(
            f"The AnnData already has {taken or key_added!r}, which is not from mixvi; nothing was written. "
            f"Choose another key_added than {key_added!r}, or delete what you do not need."
        )


def _is_complete(adata: AnnData, key_added: str, there: list[tuple[str, str]]) -> bool:
    """Whether entries have names and types of all that ``annotate`` writes of a GMVAE, or of a model without clusters.

    Of the latter it is one array, which could be of another tool unless it has the usual name.
    """
    latent = ("obsm", f"X_{key_added}")
    if there == [latent]:
        return key_added == USUAL
    obs = [("obs", f"{key_added}{end}") for end in ("", "_confidence", "_entropy")]
    needed = [*obs, latent, ("obsm", f"{key_added}_probabilities")]
    if not set(needed) <= set(there):
        return False
    cluster, *numbers = (adata.obs[key] for attribute, key in there if attribute == "obs")
    return (
        isinstance(adata.obsm[f"{key_added}_probabilities"], pd.DataFrame)
        and isinstance(cluster.dtype, pd.CategoricalDtype)
        and all(pd.api.types.is_float_dtype(column) for column in numbers)
    )
