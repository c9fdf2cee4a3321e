"""What cells would look like under another condition."""

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

        It is the model's extrapolation, not a measurement: it holds as far as cells of one kind answer as the others
        did. `mixvi.perturb.fit_counterfactual` and ``evaluate`` say how far that was on conditions that were measured.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        condition
            The other condition: a value of the batch column, or ``{column: value}`` for any of the registered
            covariates. What is not named stays as it is.
        from_
            Take only cells of this condition, given in the same way; ``None`` takes all.
        give_mean
            The mean of p(x | z, c) at the mean z of q(z | x, c); ``False`` gives the values that stand in
            p(x | z, c) of the new condition where the cell's own stand in that of its own: cells keep their noise,
            and with it the spread of real ones, and no change of condition is no change (but grey values of a
            Bernoulli model become 0 or 1).
        library_size
            Count models: give every cell this total (1e4, say, for normalised expression) in place of its own.
        seed
            Of the draws; ``None`` goes on with torch's own state.

        Returns
        -------
        One row a cell, in the order of the input: ``.X`` (n, g) as in `get_reconstruction`; ``.obs`` that of the
        cells, but for the new condition; ``.var`` that of the genes; ``.obsm["X_mixvi"]`` z (n, d) under the new
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
