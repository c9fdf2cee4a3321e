"""How cells are put under other conditions than their own."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixvi.model._inference import InferenceModel
from mixvi.module.cells import Cells
from mixvi.module.likelihoods import LIKELIHOODS

Condition = Mapping[str, Any] | str  # values by column of .obs, or one of the batch column


class ConditionedModel(InferenceModel):
    """Abstract: conditions by name, and `Cells` under other ones."""

    def _named(self, condition: Condition) -> dict[str, Any]:
        """A condition as values by column, once the model knows them all."""
        columns = dict(self._conditions())
        if not isinstance(condition, Mapping):
            if (batch := self.registry_["setup_args"]["batch_key"]) is None:
                raise ValueError(
                    f"{condition!r} is a value of the batch, and {type(self).__name__} was set up without batch_key. "
                    f"Name the column too, {{column: value}}: the model is conditioned on {list(columns)}."
                )
            condition = {batch: condition}
        for key, value in condition.items():
            if key not in columns:
                raise ValueError(
                    f"{type(self).__name__} is not conditioned on {key!r} but on {list(columns)}: batch_key and "
                    "covariate keys of setup_anndata."
                )
            levels = columns[key]
            if levels is None and not (isinstance(value, Real) and np.isfinite(value)):
                raise ValueError(f"{key}={value!r}; it is a continuous covariate, whose value is a finite number.")
            if levels is not None and value not in set(levels):
                raise ValueError(f"{key}={value!r} is not known; the model knows {np.asarray(levels).tolist()}.")
        return dict(condition)

    def _under(self, condition: Condition) -> Callable[[Tensor], Tensor]:
        """What puts c (n, q) under a condition; what that does not name stays as it is."""
        named, columns, values = self._named(condition), [], []
        start = n_continuous = 0
        for key, levels in self._conditions():
            if levels is None:
                mean, scale = self.module.continuous[:, n_continuous].tolist()
                code = [(named.get(key, mean) - mean) / scale]
                n_continuous += 1
            else:
                code = [level == named.get(key) for level in levels]
            if key in named:
                columns += range(start, start + len(code))
                values += map(float, code)
            start += len(code)

        def put(c: Tensor) -> Tensor:
            c = c.clone()
            c[:, columns] = c.new_tensor(values)
            return c

        return put

    def _sized(self, library_size: float | None) -> Callable[[Cells], Cells]:
        """What gives cells that library size; ``None`` leaves them theirs."""
        if library_size is None:
            return lambda cells: cells
        if LIKELIHOODS[self.likelihood_].support != "count":
            raise ValueError(f"library_size={library_size} has no meaning under likelihood={self.likelihood_!r}.")
        if self.module.layout.size_factor:
            raise ValueError(f"library_size={library_size} has no meaning beside size factors; leave it out.")
        return lambda cells: cells._replace(library=torch.full_like(cells.library, library_size))
