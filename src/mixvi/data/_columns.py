"""What may stand in the columns of ``.obs`` that a model reads, and how new cells are laid beside those it knows."""

from collections.abc import Mapping, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData


def check_layer(adata: AnnData, layer: str | None, advice: str = "layer=None takes .X") -> None:
    """Make sure that a layer exists; ``None`` is ``.X``."""
    if layer is not None and layer not in adata.layers:
        there = sorted(filter(None, adata.layers))
        raise KeyError(f"There is no layer {layer!r}; there are {there}, and {advice}.")


def check_present(obs: pd.DataFrame, keys: Sequence[str]) -> None:
    """Make sure that there are such columns; a KeyError says which there are."""
    for key in keys:
        if key not in obs:
            raise KeyError(f"There is no column {key!r} in .obs; there are {list(obs.columns)}.")


def check_names(obs: pd.DataFrame, key: str) -> None:
    """Make sure that a column holds names of kinds of cells, which fractions are not; a ValueError says so."""
    column = obs[key].dropna()
    if pd.api.types.is_float_dtype(column) and len(fractions := column[column % 1 != 0]):
        raise ValueError(
            f".obs[{key!r}] holds fractions such as {fractions.iloc[0]:g}; names of kinds of cells are text, "
            "categories or whole numbers. Name another column, or cut this one into ranges (pandas.cut)."
        )


def check_columns(
    obs: pd.DataFrame,
    keys: Sequence[str],
    numeric: bool = False,
    positive: bool = False,
    advice: str = "fill them in or leave these cells out",
) -> None:
    """Make sure that columns exist and have a value for every cell.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If values are missing or, for numeric columns, not finite or not positive.
    """
    check_present(obs, keys)
    for key in keys:
        column = obs[key]
        wrong, what = column.isna(), "missing values"
        if numeric:
            if not pd.api.types.is_numeric_dtype(column):
                raise ValueError(
                    f".obs[{key!r}] is {column.dtype}, not numeric; register it as a categorical covariate."
                )
            wrong, what = ~np.isfinite(column.astype(float)), "NaN or infinite values"
            if positive and not wrong.any():
                wrong, what = column <= 0, "values of 0 or less, where only positive ones make sense"
        if wrong.any():
            raise ValueError(
                f".obs[{key!r}] has {what} in {int(wrong.sum()):,} of {len(obs):,} cells (the first is "
                f"{obs.index[wrong.to_numpy().argmax()]!r}); {advice}."
            )


def check_levels(obs: pd.DataFrame, levels: Mapping[str, np.ndarray]) -> None:
    """Make sure that new cells have no category that the model has never seen."""
    for key, known in levels.items():
        new = [value for value in obs[key].unique() if value not in set(known)]
        if new:
            raise ValueError(
                f".obs[{key!r}] has {new}, which the model was not trained on; it knows {np.asarray(known).tolist()}. "
                "Leave these cells out, rename them, or train on them too."
            )


def own_columns(adata: AnnData, rows: np.ndarray) -> pd.DataFrame:
    """``.obs`` of these rows, without what scvi-tools has written there; cells that come several times get numbers."""
    obs = adata.obs.iloc[rows]
    obs = obs[[column for column in obs if not str(column).startswith("_scvi_")]].copy()
    if not obs.index.is_unique:
        obs.index = [f"{name}-{i}" for i, name in enumerate(obs.index)]
    return obs


def annotation_keys(adata: AnnData, key_added: str) -> list[tuple[str, str]]:
    """What there is of all that ``annotate`` may write, as (attribute, key): ``("obsm", "X_mixvi")``."""
    places = [
        *(("obs", key) for key in (key_added, f"{key_added}_confidence", f"{key_added}_entropy")),
        *(("obsm", key) for key in (f"X_{key_added}", f"{key_added}_probabilities")),
        ("varm", f"PCs_{key_added}"),
    ]
    return [(attribute, key) for attribute, key in places if key in getattr(adata, attribute)]


def check_free(adata: AnnData, key_added: str) -> None:
    """Make sure that what ``annotate`` writes takes the place of nothing but its own earlier results."""
    own = {"model", "version", "settings"} <= set(adata.uns.get(key_added, {}))
    taken = [key for _, key in annotation_keys(adata, key_added)]
    if not own and (taken or key_added in adata.uns):
        raise ValueError(
            f"The AnnData has {taken or key_added!r} already, and not from mixvi; nothing was written. "
            f"Choose another key_added than {key_added!r}."
        )


def stand_in(adata: AnnData, var_names: np.ndarray, setup_args: Mapping[str, Any], no_label: str) -> AnnData:
    """A small AnnData with what a model needs of new cells, so that theirs is not written to. Values are not copied.

    New cells count as unlabelled.

    Raises
    ------
    ValueError
        If genes differ from the model's, in name or order.
    KeyError
        If a layer or column is missing.
    """
    _check_genes(adata.var_names, var_names)
    layer = setup_args["layer"]
    advice = f"the model reads that one; if the same kind of values are in .X, adata.layers[{layer!r}] = adata.X"
    check_layer(adata, layer, advice)
    keys = [setup_args["batch_key"], setup_args["size_factor_key"]]
    for covariates in (setup_args["categorical_covariate_keys"], setup_args["continuous_covariate_keys"]):
        keys += list(covariates or [])
    keys = list(dict.fromkeys(key for key in keys if key is not None))
    check_columns(adata.obs, keys)
    obs = adata.obs[keys].copy()
    if (label := setup_args["labels_key"]) is not None:
        unlabeled = setup_args["unlabeled_category"]
        obs[label] = no_label if unlabeled is None else unlabeled
    matrix = adata.X if layer is None else adata.layers[layer]
    return ad.AnnData(
        matrix if layer is None else None,
        obs=obs,
        var=pd.DataFrame(index=adata.var_names),
        layers=None if layer is None else {layer: matrix},
    )


def as_positions(indices: Sequence[int] | None, n: int) -> np.ndarray:
    """Row numbers from ``None`` (all), a mask (n,) or row numbers, negative ones counting from the end."""
    rows = np.arange(n) if indices is None else np.asarray(indices)
    if rows.dtype == bool and len(rows) == n:
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"indices has shape {rows.shape} and type {rows.dtype}; give at least one row, or a mask of {n}."
        )
    if rows.min() < -n or rows.max() >= n:
        raise ValueError(f"indices go from {rows.min()} to {rows.max()}, but there are {n} cells.")
    return rows % n


def _check_genes(found: pd.Index, expected: np.ndarray) -> None:
    if np.array_equal(found.astype(str), np.asarray(expected).astype(str)):
        return
    missing = pd.Index(expected).difference(found)
    if len(missing):
        raise ValueError(
            f"The cells lack {len(missing):,} of the model's {len(expected):,} genes, such as {list(missing[:3])}; "
            "add them (as zeros, if they were not measured) or train on the genes in common."
        )
    what = "the model's genes in another order" if len(found) == len(expected) else f"{len(found):,} genes"
    raise ValueError(f"The cells have {what}; the model has {len(expected):,}. Pass adata[:, model.get_var_names()].")
