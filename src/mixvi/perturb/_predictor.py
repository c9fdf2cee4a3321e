"""What all predictions share: what they are asked, in which values they answer, and who is in which condition."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from mixvi.data import check_layer, check_present, describe, own_columns
from mixvi.model._base import LatentModel
from mixvi.model.registration import describe_values
from mixvi.module.likelihoods import LIKELIHOODS

TARGET_SUM = 1e4
SOURCE = "mixvi_control_cell"  # column of .obs of predictions
MIN_CELLS = 10


class Treatment(NamedTuple):
    """Where an AnnData says what was done to its cells, and of what type they are."""

    condition_key: str  # column of .obs
    control: str
    stimulated: str
    cell_type_key: str  # column of .obs

    def check(self, obs: pd.DataFrame, both: bool = False) -> None:
        """Make sure that columns and conditions are there; with ``both``, some type of cells in both conditions.

        Raises
        ------
        KeyError
            If a column does not exist.
        ValueError
            If no cell is in one of the conditions, or no type has enough in both.
        """
        check_present(obs, [self.condition_key, self.cell_type_key])
        there = set(obs[self.condition_key])
        for value in (self.control, self.stimulated) if both else (self.control,):
            if value not in there:
                raise ValueError(f"No cell has {self.condition_key}={value!r}; there are {sorted(map(str, there))}.")
        if both and not self.types(obs):
            raise ValueError(
                f"No type of {self.cell_type_key!r} has {MIN_CELLS} cells or more in both {self.control!r} and "
                f"{self.stimulated!r}: there is nothing to learn the effect from."
            )

    def types(self, obs: pd.DataFrame) -> list[str]:
        """Types that have at least 10 cells in both conditions: the mean of fewer is mostly noise."""
        count = pd.crosstab(obs[self.cell_type_key], obs[self.condition_key])
        count = count.reindex(columns=[self.control, self.stimulated], fill_value=0).min(axis=1)
        return sorted(count.index[count >= MIN_CELLS], key=str)

    def control_rows(self, obs: pd.DataFrame, cell_type: str | None) -> np.ndarray:
        """Rows of the control cells of a type (m,); ``None`` takes all types."""
        self.check(obs)
        chosen = obs[self.condition_key] == self.control
        if cell_type is not None:
            chosen &= obs[self.cell_type_key] == cell_type
        if not chosen.any():
            raise ValueError(
                f"No cell of {self.cell_type_key}={cell_type!r} is in {self.condition_key}={self.control!r}; types are "
                f"{sorted(map(str, set(obs[self.cell_type_key])))}."
            )
        return np.flatnonzero(chosen)


class Predictor(ABC):
    """Abstract: what says how control cells would look under the treatment."""

    treatment: Treatment

    @abstractmethod
    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        """Predict the stimulated counterparts of control cells.

        Parameters
        ----------
        adata
            Cells with the genes and covariates that were learned from; its control cells are predicted from.
        cell_type
            The type to predict; ``None`` takes all control cells.
        n_samples
            Cells to draw for each control cell, of a model of counts; others give each cell once.
        seed
            Of the draws.

        Returns
        -------
        One row a predicted cell: ``.X`` (m, g) as `expression` gives it, log-normalised where counts were learned from;
        ``.obs`` that of the control cell, whose name is in ``"mixvi_control_cell"``, its condition the new one;
        ``.var`` that of the genes.

        Raises
        ------
        ValueError
            If there is no such control cell.
        """

    def _answer(self, x: np.ndarray, adata: AnnData, rows: np.ndarray, **obsm: np.ndarray) -> AnnData:
        obs = own_columns(adata, rows)
        obs[self.treatment.condition_key] = pd.Categorical([self.treatment.stimulated] * len(obs))
        names = adata.obs_names[rows]
        obs[SOURCE] = (
            names if adata.obs_names.is_unique else [f"{name}-{row}" for name, row in zip(names, rows, strict=True)]
        )
        return AnnData(x.astype(np.float32), obs=obs, var=adata.var.copy(), obsm=obsm)


def expression(adata: AnnData, layer: str | None = None, counts: bool | None = None) -> np.ndarray:
    """Values that predictions are compared in: log(1 + counts per 10,000) of counts, others as they are.

    Parameters
    ----------
    adata
        n cells x g genes.
    layer
        Layer to look at; ``None`` is ``.X``.
    counts
        Whether these are counts; ``None`` has a look (`is_counts`).

    Returns
    -------
    (n, g), dense.
    """
    x = _matrix(adata, layer)
    if is_counts(adata, layer) if counts is None else counts:
        return log_normalize(x)
    return np.array(x.toarray() if issparse(x) else x, dtype=np.float32)


def is_counts(adata: AnnData, layer: str | None = None) -> bool:
    """Whether all values are whole and not negative, and some above 1."""
    return describe(_matrix(adata, layer), "adata", adata.obs_names, adata.var_names).kind == "count"


def draws(model: LatentModel) -> bool:
    """Whether a model predicts by drawing cells: those of counts do."""
    return LIKELIHOODS[model.likelihood_].support == "count"


def check_scale(model: LatentModel) -> None:
    """Make sure that a model of real values was not given counts: it would predict on another scale than others."""
    if (
        model.adata is not None
        and not draws(model)
        and describe_values(model.registry_, model.adata_manager).kind == "count"
    ):
        raise ValueError(
            f"The {type(model).__name__} has likelihood={model.likelihood_!r} and was given counts. Log-normalise them "
            "(sc.pp.normalize_total to 1e4, sc.pp.log1p), or use likelihood='nb'."
        )


def log_normalize(counts: np.ndarray | csr_matrix) -> np.ndarray:
    """Log(1 + counts per 10,000) of counts (n, g), dense; a cell without counts stays at 0."""
    cells = AnnData(csr_matrix(counts, dtype=np.float32))
    sc.pp.normalize_total(cells, target_sum=TARGET_SUM)
    sc.pp.log1p(cells)
    return cells.X.toarray()


def _matrix(adata: AnnData, layer: str | None) -> np.ndarray | csr_matrix:
    check_layer(adata, layer)
    x = adata.X if layer is None else adata.layers[layer]
    if not isinstance(x, np.ndarray) and not issparse(x):
        x = x[: adata.n_obs]  # from a file
    return x.tocsr() if issparse(x) else np.asarray(x)
