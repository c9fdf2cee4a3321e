"""Baselines: simple predictions to compare models with. Functions of arrays, and a `Predictor` around them."""

from collections.abc import Callable
from typing import NamedTuple, override

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from mixvi.perturb._predictor import Predictor, Treatment, expression, is_counts

N_BASELINE_COMPONENTS = 50
MAX_FACTOR = 2.0  # largest factor of a scaled shift


class Training(NamedTuple):
    """What a baseline learns from: n cells, and means of each cell type that has cells in both conditions."""

    x: np.ndarray  # (n, g) expression
    cell_type: np.ndarray  # (n,)
    is_control: np.ndarray  # (n,) bool
    control: dict[str, np.ndarray]  # cell type: (g,) mean of control cells
    shift: dict[str, np.ndarray]  # cell type: (g,) mean of stimulated cells minus mean of control cells


def no_change(x: np.ndarray, training: Training) -> np.ndarray:
    """Predict the control cells (m, g) themselves."""
    return x


def mean_shift(x: np.ndarray, training: Training) -> np.ndarray:
    """Add the shift averaged over cell types, each with the same weight."""
    return x + np.mean(list(training.shift.values()), axis=0)


def nearest_shift(x: np.ndarray, training: Training) -> np.ndarray:
    """Add the shift of the cell type whose control mean is nearest (Euclidean distance)."""
    mean = x.mean(0)
    nearest = min(training.control, key=lambda name: ((training.control[name] - mean) ** 2).sum())
    return x + training.shift[nearest]


def scaled_shift(x: np.ndarray, training: Training) -> np.ndarray:
    """Add the mean shift times one factor for the cells, between 0 and 2.

    The factor comes from linear regression over the training cell types. The response is how far each type moves along
    the mean shift. The predictor is where its control mean lies along the mean shift.
    """
    direction = np.mean(list(training.shift.values()), axis=0)
    norm = max((direction**2).sum(), 1e-12)
    names = list(training.shift)
    place = np.array([training.control[name] @ direction / norm for name in names])
    size = np.array([training.shift[name] @ direction / norm for name in names])
    slope, level = np.polyfit(place, size, 1) if len(names) > 1 and np.ptp(place) > 0 else (0.0, size.mean())
    return x + np.clip(level + slope * (x.mean(0) @ direction / norm), 0, MAX_FACTOR) * direction


def pca_arithmetic(x: np.ndarray, training: Training) -> np.ndarray:
    """Add the mean shift in the space of the first 50 principal components of the training cells."""
    pca = _pca(training.x)
    shift = np.mean(list(training.shift.values()), axis=0) @ pca.components_.T
    return pca.inverse_transform(pca.transform(x) + shift)


def ridge(x: np.ndarray, training: Training) -> np.ndarray:
    """Add a shift of each cell, by ridge regression of the type's shift on 50 principal components of control cells."""
    pca = _pca(training.x)
    rows = training.is_control & np.isin(training.cell_type, list(training.shift))
    target = np.stack([training.shift[name] for name in training.cell_type[rows]])
    return x + Ridge().fit(pca.transform(training.x[rows]), target).predict(pca.transform(x))


BASELINES: dict[str, Callable[[np.ndarray, Training], np.ndarray]] = {
    "no change": no_change,
    "mean shift": mean_shift,
    "nearest type's shift": nearest_shift,
    "scaled shift": scaled_shift,
    "PCA arithmetic": pca_arithmetic,
    "ridge": ridge,
}


class Baseline(Predictor):
    """One of ``BASELINES`` with its training data, made by `fit_baseline`.

    It predicts one cell for each control cell, type by type. Nothing is drawn, so ``n_samples`` and ``seed`` have no
    effect.
    """

    def __init__(self, name: str, training: Training, treatment: Treatment, layer: str | None, counts: bool):
        self.name, self.training, self.treatment = name, training, treatment
        self.layer, self.counts = layer, counts

    @override
    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        rows = self.treatment.control_rows(adata.obs, cell_type)
        x = expression(adata[rows], self.layer, self.counts)
        types, _ = pd.factorize(adata.obs[self.treatment.cell_type_key].to_numpy()[rows], use_na_sentinel=False)
        for one in range(types.max() + 1):
            x[types == one] = BASELINES[self.name](x[types == one], self.training)
        return self._answer(x, adata, rows)


def fit_baseline(
    name: str,
    adata: AnnData,
    condition_key: str,
    control: str,
    stimulated: str,
    cell_type_key: str,
    layer: str | None = None,
) -> Baseline:
    """Learn a simple prediction, to compare a model's prediction with.

    Parameters
    ----------
    name
        One of ``BASELINES``. ``"no change"`` gives the control cells. The others add a shift to them: ``"mean shift"``
        the mean difference over cell types; ``"nearest type's shift"`` the difference of the nearest cell type;
        ``"scaled shift"`` the mean shift times one factor for each cell type; ``"PCA arithmetic"`` the mean shift in
        principal components; ``"ridge"`` one shift for each cell, by ridge regression.
    adata
        Cells to learn from, in both conditions.
    condition_key
        Column of ``.obs`` with the condition.
    control, stimulated
        Its two values.
    cell_type_key
        Column of ``.obs`` with the type of each cell.
    layer
        Layer with the values; ``None`` is ``.X``. Counts are log-normalised (`expression`).

    Returns
    -------
    `Baseline`, whose ``predict`` takes control cells.

    Raises
    ------
    ValueError
        If the name is not known, or no cell type has enough cells in both conditions.
    KeyError
        If a column does not exist.
    """
    if name not in BASELINES:
        raise ValueError(f"{name!r} is not a baseline; there are {list(BASELINES)}.")
    treatment = Treatment(condition_key, control, stimulated, cell_type_key)
    treatment.check(adata.obs, both=True)
    counts = is_counts(adata, layer)
    x = expression(adata, layer, counts)
    cell_type, condition = adata.obs[cell_type_key].to_numpy(), adata.obs[condition_key].to_numpy()
    control_mean, stimulated_mean = (
        {one: x[(cell_type == one) & (condition == value)].mean(0) for one in treatment.types(adata.obs)}
        for value in (control, stimulated)
    )
    shift = {one: stimulated_mean[one] - mean for one, mean in control_mean.items()}
    training = Training(x, cell_type, condition == control, control_mean, shift)
    return Baseline(name, training, treatment, layer, counts)


def _pca(x: np.ndarray) -> PCA:
    return PCA(min(N_BASELINE_COMPONENTS, *(size - 1 for size in x.shape)), random_state=0).fit(x)
