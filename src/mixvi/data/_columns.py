"""Checks of the columns of ``.obs`` that a model reads, and of new cells against those of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from mixvi.data._annotation import is_plain
from mixvi.data._minified import copy_posterior
from mixvi.data._support import LARGEST

SAVED = (str, bool, int, float, np.bool_, np.integer, np.float32, np.float16)  # kinds of categories that files hold


def check_layer(adata: AnnData, layer: str | None, advice: str = "layer=None takes .X") -> None:
    """Check that a layer exists.

    Parameters
    ----------
    adata
        Cells.
    layer
        Name of the layer; ``None`` is ``.X``.
    advice
        End of the error message: what to do.

    Raises
    ------
    KeyError
        If there is no such layer.
    """
    if layer is not None and layer not in list(adata.layers):  # which need not be hashable
        there = sorted(filter(None, adata.layers))
        raise KeyError(f"There is no layer {layer!r}; the layers are {there}, and {advice}.")


def check_present(obs: pd.DataFrame, keys: Sequence, texts: bool = True) -> None:
    """Check that columns exist.

    Parameters
    ----------
    obs
        (n, ...) table of cells.
    keys
        Names of the columns.
    texts
        Whether names must be texts, as scvi-tools takes the number 0 for no name.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a name is not a text, or several columns have it.
    """
    for key in keys:
        is_other = isinstance(key, int) and not isinstance(key, bool) and key in obs
        if not isinstance(key, str) and (texts or not is_other):
            named = [name for name in obs.columns if isinstance(name, str)]
            raise ValueError(
                f"{key!r} is not the name of a column; pass a text, one of {named}. If a column has this name, give it "
                "another one: names in files are texts."
            )
        if key not in obs:
            raise KeyError(f"There is no column {key!r} in .obs; the columns are {list(obs.columns)}.")
        if isinstance(obs[key], pd.DataFrame):
            raise ValueError(f".obs has {obs[key].shape[1]} columns {key!r}; rename or drop all but one.")


def check_names(obs: pd.DataFrame, key: str) -> None:
    """Check that a column has names of groups of cells, and no fractions.

    Parameters
    ----------
    obs
        (n, ...) table of cells.
    key
        Name of the column.

    Raises
    ------
    ValueError
        If the column has fractions.
    """
    if fractions := [value for value in _categories(obs[key]) if isinstance(value, float | np.floating) and value % 1]:
        raise ValueError(
            f".obs[{key!r}] holds fractions such as {fractions[0]:g}; names of kinds of cells must be text, "
            "categories or whole numbers. Name another column, or turn this one into ranges with pandas.cut."
        )


def check_columns(
    obs: pd.DataFrame,
    keys: Sequence[str],
    numeric: bool = False,
    positive: bool = False,
    advice: str = "fill them in or leave these cells out",
    texts: bool = True,
) -> None:
    """Check that columns exist and have a value for every cell.

    Parameters
    ----------
    obs
        (n, ...) table of cells.
    keys
        Names of the columns.
    numeric
        Whether the columns must have finite numbers.
    positive
        Whether numeric columns must be above 0.
    advice
        End of the error message: what to do.
    texts
        As in `check_present`.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If values are missing, are of kinds that a file cannot hold, or mix text with numbers; or if numeric columns are
        not finite or not positive.
    """
    check_present(obs, keys, texts)
    for key in keys:
        column = obs[key]
        wrong, what = column.isna(), "missing values"
        if numeric:
            if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
                raise ValueError(
                    f".obs[{key!r}] is {column.dtype}, not numeric; register it as a categorical covariate."
                )
            wrong, what = ~(column.astype(float).abs() <= LARGEST), "NaN, infinite or too large values"
            if positive and not wrong.any():
                wrong, what = column <= 0, "values of 0 or less (all must be positive)"
        else:
            _check_categories(key, _categories(column))
        if wrong.any():
            raise ValueError(
                f".obs[{key!r}] has {what} in {int(wrong.sum()):,} of {len(obs):,} cells (the first is "
                f"{obs.index[wrong.to_numpy().argmax()]!r}); {advice}."
            )


def _categories(column: pd.Series) -> list:
    """Values that occur in a column, and those that its type allows for."""
    found = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna().unique()
    return list(found)


def _check_categories(key: str, values: list) -> None:
    """Raise if a model could not save the categories of a column, or not sort them."""
    cure = f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)."
    if other := [value for value in values if not isinstance(value, SAVED)]:
        raise ValueError(
            f".obs[{key!r}] has values such as {other[0]!r}, which a model cannot save; make them text: {cure}"
        )
    if other := [value for value in values if isinstance(value, str) and not is_plain(value)]:
        raise ValueError(f".obs[{key!r}] has {other[0]!r}, with a character that files cannot hold; rename it.")
    if pd.api.types.infer_dtype(values) in ("mixed", "mixed-integer"):
        kinds = sorted({type(value).__name__ for value in values})
        raise ValueError(f".obs[{key!r}] mixes values of type {' and '.join(kinds)}; make them one kind: {cure}")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def check_levels(obs: pd.DataFrame, levels: Mapping[str, np.ndarray]) -> None:
    """Check that new cells have only categories that the model was trained on.

    Parameters
    ----------
    obs
        (n, ...) table of the new cells.
    levels
        Name of each column, with its categories in training.

    Raises
    ------
    ValueError
        If there is a new category.
    """
    for key, known in levels.items():
        same = {(_is_bool(value), value) for value in known}  # True == 1, but they are not one category
        new = [value for value in obs[key].unique().tolist() if (_is_bool(value), value) not in same]
        if new:
            raise ValueError(
                f".obs[{key!r}] has {new}, which the model was not trained on; it knows {np.asarray(known).tolist()}. "
                "For new batches, call map(adata) of the model. Or rename the categories, leave these cells out, or "
                "train on them."
            )


def stand_in(adata: AnnData, var_names: np.ndarray, setup_args: Mapping[str, Any], no_label: str) -> AnnData:
    """A small AnnData that a model can register in place of the user's, which must not change.

    Parameters
    ----------
    adata
        New cells.
    var_names
        (g,) names of the model's genes.
    setup_args
        Arguments of the model's ``setup_anndata``, by name.
    no_label
        Label of cells without a class, if ``setup_args`` has no ``unlabeled_category``.

    Returns
    -------
    The same matrix without a copy, and copies of the columns that the model reads. All cells are unlabelled.

    Raises
    ------
    ValueError
        If the genes or their order differ from the model's, or a column has missing values.
    KeyError
        If a layer or column is missing.
    """
    _check_genes(adata.var_names, var_names)
    layer = setup_args["layer"]
    advice = f"the model needs this one; if .X has the same kind of values, set adata.layers[{layer!r}] = adata.X"
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
    cells = ad.AnnData(
        matrix if layer is None else None,
        obs=obs,
        var=pd.DataFrame(index=adata.var_names),
        layers=None if layer is None else {layer: matrix},
    )
    copy_posterior(adata, cells)
    return cells


def as_positions(indices: Sequence[int] | np.ndarray | None, n: int) -> np.ndarray:
    """Row numbers of chosen cells.

    Parameters
    ----------
    indices
        (m,) row numbers, where negative ones count from the end, or a mask (n,). ``None`` is all cells.
    n
        Number of cells.

    Returns
    -------
    (m,) row numbers from 0 to n - 1.

    Raises
    ------
    ValueError
        If ``indices`` is empty, out of range, or neither whole numbers nor a mask.
    """
    rows = np.arange(n) if indices is None else np.asarray(indices)
    if rows.dtype == bool and len(rows) == n:
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"indices has shape {rows.shape} and dtype {rows.dtype}; pass at least one row number, or a mask of {n}."
        )
    if rows.min() < -n or rows.max() >= n:
        raise ValueError(f"indices go from {rows.min()} to {rows.max()}; {n} cells allow {-n} to {n - 1}.")
    return rows % n


def _check_genes(found: pd.Index, expected: np.ndarray) -> None:
    if np.array_equal(found.astype(str), np.asarray(expected).astype(str)):
        return
    missing = pd.Index(expected).difference(found)
    if len(missing):
        raise ValueError(
            f"The cells lack {len(missing):,} of the model's {len(expected):,} genes, such as {list(missing[:3])}; "
            "call model.map(adata), which fills them in, or train on the common genes."
        )
    what = "the model's genes in another order" if len(found) == len(expected) else f"{len(found):,} genes"
    raise ValueError(f"The cells have {what}; the model has {len(expected):,}. Pass adata[:, model.get_var_names()].")
