"""Counterfactual prediction: cells under another condition."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from torch import Tensor

from mixvi.data import as_positions, own_columns
from mixvi.model._mixin import Mixin
from mixvi.model.conditions import Condition, named, sized, under
from mixvi.model.registration import registered
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense
from mixvi.ops.quantile_map import carry


class ConditionPrior(NamedTuple):
    """Place of each condition in the latent space, one row a condition."""

    loc: pd.DataFrame  # (conditions, d)
    scale: pd.DataFrame  # (conditions, d)


class ConditionalMixin(Mixin):
    """Abstract: batches and other conditions, for models whose decoder or prior sees them."""

    def get_batch_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Place of the batch of each cell in the embedding of a model with ``batch_representation="embedding"``.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.

        Returns
        -------
        (n, ``embedding_dim``).

        Raises
        ------
        KeyError
            If the batches are not embedded.
        """
        places = self.module.get_embedding(REGISTRY_KEYS.BATCH_KEY).weight
        return collect(
            self, lambda cells: cells.c[:, : len(places)] @ places, adata, indices, batch_size, minified=True
        )

    def predict_counterfactual(
        self,
        adata: AnnData | None = None,
        condition: Condition | None = None,
        from_: Condition | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        give_mean: bool = True,
        library_size: float | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
    ) -> AnnData:
        """Predict what cells would look like under another condition: encode with their own, decode with that one.

        The result is an extrapolation of the model. It assumes that these cells respond like the other cells did.
        To check this on measured conditions, use `mixvi.perturb.fit_counterfactual` and ``evaluate``.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        condition
            The other condition: a value of the batch column, or ``{column: value}`` for any of the registered
            covariates. Other covariates do not change.
        from_
            Take only cells of this condition, given in the same way; ``None`` takes all.
        give_mean
            ``True``: the mean of p(x | z, c) at the mean z of q(z | x, c). ``False``: each value keeps its quantile.
            The quantile of the cell's own value under its own condition is mapped to the value at the same quantile
            under the new condition. So cells keep their noise, and have the spread of real cells. If the condition
            does not change, the values do not change, except that grey values of a Bernoulli model become 0 or 1.
        library_size
            Count models: give every cell this total instead of its own, such as 1e4 for normalised expression.
        seed
            Seed of the draws; ``None`` uses the current state of torch.

        Returns
        -------
        One row per cell, in the order of the input. ``.X`` (n, g) is as in `get_reconstruction`. ``.obs`` and ``.var``
        are those of the cells and genes, with the new condition. ``.obsm["X_mixvi"]`` has z (n, d) under the new
        condition.

        Raises
        ------
        ValueError
            If a condition is not known, no cell is of ``from_``, or ``library_size`` has no meaning.
        """
        with_size = sized(self, library_size)
        if condition is None:
            raise ValueError(f"condition is missing; the model is conditioned on {list(self.conditions)}.")
        changes, put = named(self, condition), under(self, condition)
        registered(self, adata, minified=give_mean)
        cells = self.adata if adata is None else adata
        rows = as_positions(indices, cells.n_obs)
        if from_ is not None:
            for key, value in named(self, from_).items():
                rows = rows[(cells.obs[key].iloc[rows] == value).to_numpy()]
            if not len(rows):
                raise ValueError(f"No cell is of from_={from_!r}.")

        def predict(mine: Cells) -> Tensor:
            qz, others = self.module.encode(mine), mine._replace(c=put(mine.c))
            z = self.module.prior.move(qz.loc, mine.c, others.c)
            px = self.module.decode(z, with_size(others))
            if give_mean:
                return torch.cat([z, px.mean], -1)
            return torch.cat([z, carry(dense(mine.x), self.module.decode(qz.loc, mine), px)], -1)

        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            found = collect(self, predict, adata, rows, batch_size, minified=give_mean)
        d = found.shape[1] - cells.n_vars
        obs, layer = own_columns(cells, rows), self.registry_["setup_args"]["layer"]
        for key, value in changes.items():
            obs[key] = pd.Categorical([value] * len(obs)) if isinstance(value, str) else value
        layers = {layer: found[:, d:]} if layer else None  # ready to be given back to the model
        predicted = AnnData(found[:, d:], obs=obs, var=cells.var.copy(), layers=layers)
        predicted.obsm["X_mixvi"] = found[:, :d]
        return predicted
