"""One table for all predictions, with how far its figures can be trusted."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from mixvi import metrics
from mixvi.metrics import Trio, moments
from mixvi.perturb._predictor import expression

INTERVAL = (2.5, 97.5)  # percentiles


def evaluate(
    predictions: Mapping[str, AnnData],
    observed: AnnData,
    control: AnnData,
    layer: str | None = None,
    n_top: int = metrics.N_TOP,
    n_resamples: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare predicted cells with real ones.

    =============================  =====================================================================================
    ``pearson of change``          correlation of the predicted and the real change of means over control, over genes
    ``r2 of means``                squared correlation of predicted and real means, as in the scGen paper
    ``r2 of variances``            the same of variances
    ``mse``                        mean squared difference of means; lower is better
    ``energy distance``            between predicted and real cells (at most 1,000 of each); lower is better
    ``de overlap``                 share of the top genes found, in the right direction
    =============================  =====================================================================================

    The first four are given over all genes and over the ``n_top`` that really change most (by Welch's t).

    Parameters
    ----------
    predictions
        By name: what `Predictor.predict` gave.
    observed, control
        The real stimulated cells of the same kind, and the control cells; n x g with the same genes.
    layer
        Layer of these two with the values; ``None`` is ``.X``. Counts are log-normalised (`expression`).
    n_top
        Number of differentially expressed genes; all there are, if these are fewer.
    n_resamples
        Bootstrap samples of the cells of all three.
    seed
        Of the bootstrap.

    Returns
    -------
    One row a figure: ``prediction``, ``metric``, ``genes`` (``"all"`` or ``"top 100"``), ``value``, and ``low`` and
    ``high``, the bootstrap's 95 % interval: how far the figure depends on which cells were measured.

    Raises
    ------
    ValueError
        If genes differ, or there are fewer than two cells of one kind.
    """
    _check(predictions, observed, control)
    n_top = min(n_top, observed.n_vars)
    rng = np.random.default_rng(seed)
    real, before = expression(observed, layer), expression(control, layer)
    weights_real, weights_before = (metrics.resampling(len(x), n_resamples, rng) for x in (real, before))
    sides = moments(real), moments(before)
    resampled_sides = moments(real, weights_real), moments(before, weights_before)
    top = metrics.de_genes(*sides, n_top)
    rows = []
    for name, predicted in predictions.items():
        x = expression_of(predicted)
        weights = metrics.resampling(len(x), n_resamples, rng)
        trio, resampled = Trio(moments(x), *sides), Trio(moments(x, weights), *resampled_sides)
        for metric, genes, of in _figures(top, n_top):
            rows.append([name, metric, genes, float(of(trio)), *np.percentile(of(resampled), INTERVAL)])
        distances, n = metrics.cell_distances(x, real, seed)
        pairs = tuple(metrics.resampling(size, n_resamples, rng) for size in (n, len(distances) - n))
        spread = metrics.energy_distance(distances, n, pairs)
        value = metrics.energy_distance(distances, n)
        rows.append([name, "energy distance", "all", value, *np.percentile(spread, INTERVAL)])
    return pd.DataFrame(rows, columns=["prediction", "metric", "genes", "value", "low", "high"])


def expression_of(predicted: AnnData) -> np.ndarray:
    """Values (m, g) of a prediction, which are expression already."""
    return np.asarray(predicted.X)


def _figures(top: np.ndarray, n_top: int):
    """Name, genes and function of a `Trio` of each figure."""
    for metric, of in (
        ("pearson of change", metrics.pearson_of_change),
        ("r2 of means", metrics.r2_of_means),
        ("r2 of variances", metrics.r2_of_variances),
        ("mse", metrics.mse_of_means),
    ):
        yield metric, "all", of
        yield metric, f"top {n_top}", partial(of, genes=top)
    yield "de overlap", f"top {n_top}", partial(metrics.de_overlap, n_top=n_top)


def _check(predictions: Mapping[str, AnnData], observed: AnnData, control: AnnData) -> None:
    sides = {"observed": observed, "control": control} | dict(predictions)
    for name, cells in sides.items():
        if cells.n_obs < 2:
            raise ValueError(f"{name!r} has {cells.n_obs} cells; there must be at least two to compare.")
        if not cells.var_names.equals(observed.var_names):
            raise ValueError(f"{name!r} has other genes than 'observed', or in another order; select the same genes.")
