"""Base class of predictors, the treatment they predict, and the scale of their values."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from mixvi.data import check_layer, check_present, describe, has_values, own_columns
from mixvi.model._base import LatentModel
from mixvi.model.unchanged import values_of
from mixvi.model.values import describe_values
from mixvi.module.likelihoods import LIKELIHOODS

TARGET_SUM = 1e4
SOURCE = "mixvi_control_cell"  # column of .obs of predictions
MIN_OF_TYPE = 10


class Treatment(NamedTuple):
    """Columns of ``.obs`` with the condition and the type of each cell, and the two conditions to compare."""

    condition_key: str  # column of .obs
    control: str
    stimulated: str
    cell_type_key: str  # column of .obs

    def check(self, obs: pd.DataFrame, both: bool = False) -> None:
        """Check that columns and conditions exist.

        Parameters
        ----------
        obs
            ``.obs`` of n cells.
        both
            Whether stimulated cells must exist too, and one cell type with at least 10 cells in both conditions.

        Raises
        ------
        KeyError
            If a column does not exist.
        ValueError
            If the two conditions are the same, no cell has one of them, or no cell type has enough cells in both.
        """
        check_present(obs, [self.condition_key, self.cell_type_key])
        if self.control == self.stimulated:
            raise ValueError(f"control and stimulated are both {self.control!r}; they must differ.")
        there = set(obs[self.condition_key])
        for value in (self.control, self.stimulated) if both else (self.control,):
            if value not in there:
                raise ValueError(f"No cell has {self.condition_key}={value!r}; there are {sorted(map(str, there))}.")
        if both and not self.types(obs):
            raise ValueError(
                f"No type of {self.cell_type_key!r} has {MIN_OF_TYPE} cells or more in both {self.control!r} and "
                f"{self.stimulated!r}, so there is nothing to learn the effect from."
            )

    def types(self, obs: pd.DataFrame) -> list[str]:
        """Cell types that have at least 10 cells in both conditions. The mean of fewer cells is mostly noise."""
        count = pd.crosstab(obs[self.cell_type_key], obs[self.condition_key])
        count = count.reindex(columns=[self.control, self.stimulated], fill_value=0).min(axis=1)
        return sorted(count.index[count >= MIN_OF_TYPE], key=str)

    def control_rows(self, obs: pd.DataFrame, cell_type: str | None) -> np.ndarray:
        """Find the control cells.

        Parameters
        ----------
        obs
            ``.obs`` of n cells.
        cell_type
            The cell type to take; ``None`` takes all.

        Returns
        -------
        (m,) row numbers.

        Raises
        ------
        KeyError
            If a column does not exist.
        ValueError
            If there is no such control cell.
        """
        self.check(obs)
        chosen = obs[self.condition_key] == self.control
        if cell_type is not None:
            chosen &= obs[self.cell_type_key] == cell_type
        if not chosen.any():
            raise ValueError(
                f"No cell of {self.cell_type_key}={cell_type!r} has {self.condition_key}={self.control!r}. Types are "
                f"{sorted(map(str, set(obs[self.cell_type_key])))}."
            )
        return np.flatnonzero(chosen)


class Predictor(ABC):
    """Abstract base class. A predictor predicts what control cells would express under the treatment."""

    treatment: Treatment

    @abstractmethod
    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        """Predict the stimulated counterparts of control cells.

        Parameters
        ----------
        adata
            Cells with the genes and covariates of the training data. Only its control cells are used.
        cell_type
            The cell type to predict; ``None`` takes all control cells.
        n_samples
            Number of cells to predict for each control cell, by a model of counts. Other predictors ignore it.
        seed
            Of the draws.

        Returns
        -------
        One row for each predicted cell. ``.X`` (m, g) has the values of `expression`: log-normalised if the training
        data were counts. ``.obs`` is that of the control cell, with the new condition; the name of the control cell is
        in ``.obs["mixvi_control_cell"]``. ``.var`` is that of the genes.

        Raises
        ------
        ValueError
            If there is no such control cell.
        """

    def _answer(self, x: np.ndarray, adata: AnnData, rows: np.ndarray, **obsm: np.ndarray) -> AnnData:
        """Values (m, g) and representations (m, d) as the AnnData that ``predict`` returns."""
        obs = own_columns(adata, rows)
        obs[self.treatment.condition_key] = pd.Categorical([self.treatment.stimulated] * len(obs))
        names = adata.obs_names[rows]
        obs[SOURCE] = (
            names if adata.obs_names.is_unique else [f"{name}-{row}" for name, row in zip(names, rows, strict=True)]
        )
        predicted = AnnData(x.astype(np.float32), obs=obs, var=adata.var.copy())
        predicted.obsm.update(obsm)
        return predicted


def expression(adata: AnnData, layer: str | None = None, counts: bool | None = None) -> np.ndarray:
    """Values in which predictions are compared: log(1 + counts per 10,000) of counts, other values unchanged.

    Parameters
    ----------
    adata
        n cells x g genes.
    layer
        Layer with the values; ``None`` is ``.X``.
    counts
        Whether the values are counts; ``None`` tests it with `is_counts`.

    Returns
    -------
    (n, g), dense.

    Raises
    ------
    KeyError
        If there is no such layer.
    """
    x = _matrix(adata, layer)
    if is_counts(adata, layer) if counts is None else counts:
        return log_normalize(x)
    return np.array(x if isinstance(x, np.ndarray) else x.toarray(), dtype=np.float32)


def is_counts(adata: AnnData, layer: str | None = None) -> bool:
    """Whether all values are whole numbers of at least 0, and some are above 1.

    Parameters
    ----------
    adata
        n cells x g genes.
    layer
        Layer with the values; ``None`` is ``.X``.

    Returns
    -------
    True for counts.

    Raises
    ------
    KeyError
        If there is no such layer.
    """
    return describe(_matrix(adata, layer), "adata", adata.obs_names, adata.var_names).kind == "count"


def draws(model: LatentModel) -> bool:
    """Whether a model predicts by drawing cells. Models of counts do."""
    return LIKELIHOODS[model.likelihood_].support == "count"


def check_scale(model: LatentModel) -> None:
    """Raise a ValueError if a model of real values was trained on counts: its predictions would be on another scale."""
    if (
        model.adata is not None
        and not draws(model)
        and has_values(model.adata)
        and describe_values(model.registry_, model.adata_manager).kind == "count"
    ):
        raise ValueError(
            f"The {type(model).__name__} has likelihood={model.likelihood_!r} and was trained on counts. Log-normalise "
            "them (sc.pp.normalize_total to 1e4, sc.pp.log1p), or use likelihood='nb'."
        )


def log_normalize(counts: np.ndarray | csr_matrix) -> np.ndarray:
    """Log(1 + counts per 10,000) of counts (n, g), dense. A cell without counts stays at 0."""
    cells = AnnData(csr_matrix(counts, dtype=np.float32))
    sc.pp.normalize_total(cells, target_sum=TARGET_SUM)
    sc.pp.log1p(cells)
    return csr_matrix(cells.X).toarray()


def _matrix(adata: AnnData, layer: str | None) -> np.ndarray | csr_matrix:
    check_layer(adata, layer)
    x, _ = values_of(adata, layer)
    if not isinstance(x, np.ndarray) and not issparse(x):
        x = x[: adata.n_obs]  # from a file
    return x.tocsr() if issparse(x) else np.asarray(x)
