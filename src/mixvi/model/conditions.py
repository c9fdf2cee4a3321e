"""Cells under other conditions than their own."""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.nn import Embedding
from torch import Tensor

from mixvi._checks import check_number, check_whole
from mixvi._warnings import warn
from mixvi.model.registry import conditions_of
from mixvi.module.cells import Cells, Layout
from mixvi.module.likelihoods import LIKELIHOODS
from mixvi.module.nets import Hidden

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

Condition = Mapping[str, Any] | str  # values by column of .obs, or one of the batch column


def named(model: "LatentModel", condition: Condition) -> dict[str, Any]:
    """Check a condition, and give its values by column.

    Parameters
    ----------
    model
        Model with conditions.
    condition
        Values by column of ``.obs``, or one value of the batch column.

    Raises
    ------
    ValueError
        If the model does not know a column or a value.
    """
    columns = dict(conditions_of(model.registry_))
    if not isinstance(condition, Mapping):
        if (batch := model.registry_["setup_args"]["batch_key"]) is None:
            raise ValueError(
                f"{condition!r} is a value of the batch, and {type(model).__name__} was set up without batch_key. "
                f"Name the column too, {{column: value}}: the model is conditioned on {list(columns)}."
            )
        condition = {batch: condition}
    for key, value in condition.items():
        if key not in columns:
            raise ValueError(
                f"{type(model).__name__} is not conditioned on {key!r} but on {list(columns)}: batch_key and "
                "covariate keys of setup_anndata."
            )
        levels = columns[key]
        if levels is None and not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"{key}={value!r}; it is a continuous covariate, whose value is a finite number.")
        if levels is not None and value not in set(levels):
            raise ValueError(f"{key}={value!r} is not known; the model knows {np.asarray(levels).tolist()}.")
        if value in (model.empty_levels_ or {}).get(key, []):
            warn(
                f"{key}={value!r} had no cells in training, so the model has not learned it, and these results mean "
                "nothing. Pass a level that has cells."
            )
    return dict(condition)


def under(model: "LatentModel", condition: Condition) -> Callable[[Tensor], Tensor]:
    """A function that changes c (n, q) to a condition. Columns that the condition does not name keep their values.

    Parameters
    ----------
    model, condition
        As in `named`.
    """
    wanted = named(model, condition)
    columns: list[int] = []
    values: list[float] = []
    start = n_continuous = 0
    for key, levels in conditions_of(model.registry_):
        if levels is None:
            mean, rest, scale = model.module.get_buffer("continuous.moments")[:, n_continuous].tolist()
            code = [(wanted.get(key, mean + rest) - mean - rest) / scale]
            n_continuous += 1
        else:
            code = [level == wanted.get(key) for level in levels]
        if key in wanted:
            columns += range(start, start + len(code))
            values += map(float, code)
        start += len(code)

    def put(c: Tensor) -> Tensor:
        c = c.clone()
        c[:, columns] = c.new_tensor(values)
        return c

    return put


def sized(model: "LatentModel", library_size: float | None) -> Callable[[Cells], Cells]:
    """A function that gives cells a library size.

    Parameters
    ----------
    model
        Model of counts without size factors.
    library_size
        Total count of each cell; ``None`` leaves the cells their own.

    Raises
    ------
    ValueError
        If the model is not one of counts, or has size factors.
    """
    if library_size is None:
        return lambda cells: cells
    check_number("library_size", library_size, above=0)
    if LIKELIHOODS[model.likelihood_].support != "count":
        raise ValueError(f"library_size={library_size} has no meaning under likelihood={model.likelihood_!r}.")
    if model.module.layout.size_factor:
        raise ValueError(f"library_size={library_size} has no meaning beside size factors; leave it out.")
    return lambda cells: cells._replace(library=torch.full_like(cells.library, library_size))


def with_batches(hidden: Hidden, layout: Layout, batch_representation: str, embedding_dim: int) -> Hidden:
    """Hidden layers that see the batch as one-hot columns, or as its place in an embedding.

    Parameters
    ----------
    hidden
        The hidden layers.
    layout
        What is registered.
    batch_representation
        ``"one-hot"`` or ``"embedding"``.
    embedding_dim
        Width of the embedding.

    Raises
    ------
    ValueError
        If there is no such representation, or no batch or no hidden layer to have it.
    """
    check_whole("embedding_dim", embedding_dim)
    if batch_representation == "one-hot":
        return hidden
    if batch_representation != "embedding":
        raise ValueError(f"batch_representation={batch_representation!r}; it is 'one-hot' or 'embedding'.")
    if not layout.batch_levels or not hidden.n_layers:
        missing = "hidden layers (n_layers)" if layout.batch_levels else "a batch (batch_key)"
        raise ValueError(f"batch_representation='embedding' needs {missing}; leave it out.")
    return hidden._replace(batches=Embedding(layout.batch_levels, embedding_dim))
