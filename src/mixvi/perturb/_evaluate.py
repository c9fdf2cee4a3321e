"""Compare predicted with real cells: one table of metrics, with bootstrap intervals."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from mixvi import metrics
from mixvi.metrics import Trio, moments
from mixvi.perturb._predictor import SOURCE, TARGET_SUM, expression, is_counts

INTERVAL = (2.5, 97.5)  # percentiles
MAX_PLAUSIBLE = 2 * np.log1p(TARGET_SUM)  # twice the largest log-normalised value, because baselines add to values
RANGES = {"pearson of change": (-1, 1), "r2 of means": (0, 1), "r2 of variances": (0, 1), "de overlap": (0, 1)}


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

    The first four are computed over all genes, and over the ``n_top`` genes that really change most (Welch's t).

    Parameters
    ----------
    predictions
        Name: predicted cells, as `Predictor.predict` returns them, or other cells with such values in ``.X``. If the
        real cells have counts, these are log(1 + counts per 10,000), or whole counts. Cells with the same
        ``.obs["mixvi_control_cell"]`` are several draws for one control cell. The bootstrap resamples them together,
        and the energy distance does not compare them with each other.
    observed
        The real stimulated cells, n x g.
    control
        The control cells, with the same genes.
    layer
        Layer of ``observed`` and ``control`` with the values; ``None`` is ``.X``. Counts are log-normalised
        (`expression`).
    n_top
        Number of differentially expressed genes. At most half of all genes are taken.
    n_resamples
        Number of bootstrap samples. Predicted, real and control cells are all resampled.
    seed
        Of the bootstrap.

    Returns
    -------
    One row for each prediction and metric. Columns: ``prediction``; ``metric``; ``genes``, which is ``"all"`` or
    ``"top 100"`` (with ``n_top``); ``value``; ``low`` and ``high``. These two enclose 95 % of the bootstrap values. The
    interval is moved so that the bootstrap mean equals the value, because resampled cells are noisier than the measured
    ones. It tells how much the metric depends on which cells were measured.

    Raises
    ------
    ValueError
        If genes differ, there are fewer than two cells of one kind, or predictions are not on the scale of real cells.
    """
    _check(predictions, observed, control)
    n_top = max(min(n_top, observed.n_vars // 2), 1)
    rng, of_counts = np.random.default_rng(seed), is_counts(observed, layer) or is_counts(control, layer)
    real, before = (expression(cells, layer, of_counts) for cells in (observed, control))
    weights = [metrics.resampling(np.arange(len(x)), n_resamples, rng) for x in (real, before)]
    sides = moments(real), moments(before)
    resampled_sides = moments(real, weights[0]), moments(before, weights[1])
    top = metrics.de_genes(*sides, n_top)
    rows = []
    for name, predicted in predictions.items():
        x = _log_normalised(name, predicted) if of_counts else expression(predicted, counts=False)
        source = _source(predicted)
        rows += [[name, *row] for row in _of_moments(x, source, sides, resampled_sides, top, n_resamples, rng)]
        rows.append([name, *_of_distances(x, real, source, n_resamples, rng, seed)])
    return pd.DataFrame(rows, columns=["prediction", "metric", "genes", "value", "low", "high"])


def _of_moments(
    x: np.ndarray,
    source: np.ndarray,
    sides: tuple,
    resampled_sides: tuple,
    top: np.ndarray,
    n_resamples: int,
    rng: np.random.Generator,
) -> list[tuple]:
    """Metric, genes, value and interval of all metrics that compare moments of real and control cells (``sides``)."""
    weights, n = metrics.resampling(source, n_resamples, rng), source.max() + 1
    trio = Trio(moments(x)._replace(n=n), *sides)
    resampled = Trio(moments(x, weights)._replace(n=n), *resampled_sides)
    return [
        (metric, genes, *_interval(metric, float(of(trio)), of(resampled)))
        for metric, genes, of in _figures(top, len(top))
    ]


def _of_distances(
    x: np.ndarray, real: np.ndarray, source: np.ndarray, n_resamples: int, rng: np.random.Generator, seed: int
) -> tuple:
    """Metric, genes, value and interval of the energy distance."""
    distances, chosen = metrics.cell_distances(x, real, seed)
    of_a, of_b = source[chosen], np.arange(len(distances) - len(chosen))
    pairs = metrics.resampling(of_a, n_resamples, rng), metrics.resampling(of_b, n_resamples, rng)
    value, spread = (metrics.energy_distance(distances, of_a, weights) for weights in (None, pairs))
    return "energy distance", "all", *_interval("energy distance", float(value), spread)


def _log_normalised(name: str, predicted: AnnData) -> np.ndarray:
    """Log-normalised values (m, g) of a prediction, checked to be on that scale."""
    x = expression(predicted)
    if x.max() > MAX_PLAUSIBLE:
        raise ValueError(
            f"{name!r} has values up to {x.max():.4g}, but log(1 + counts per 10,000) cannot exceed "
            f"{MAX_PLAUSIBLE / 2:.3g}. So it is not on the scale of the real cells. Use predict of mixvi.perturb, or "
            "log-normalise it (sc.pp.normalize_total to 1e4, sc.pp.log1p)."
        )
    return x


def _interval(metric: str, value: float, resampled: np.ndarray) -> tuple[float, float, float]:
    """Value, and the bootstrap interval around it, inside the range of the metric."""
    low, high = np.nanpercentile(resampled, INTERVAL) - np.nanmean(resampled) + value
    return value, *np.clip([low, high], *RANGES.get(metric, (-np.inf, np.inf)))


def _figures(top: np.ndarray, n_top: int):
    """Name of each metric, genes that it is computed over, and function of a `Trio` that computes it."""
    for metric, of in (
        ("pearson of change", metrics.pearson_of_change),
        ("r2 of means", metrics.r2_of_means),
        ("r2 of variances", metrics.r2_of_variances),
        ("mse", metrics.mse_of_means),
    ):
        yield metric, "all", of
        yield metric, f"top {n_top}", partial(of, genes=top)
    yield "de overlap", f"top {n_top}", partial(metrics.de_overlap, n_top=n_top)


def _source(predicted: AnnData) -> np.ndarray:
    """Number of the control cell (m,) of each predicted cell. Without an entry, each cell gets a number of its own."""
    if SOURCE not in predicted.obs:
        return np.arange(predicted.n_obs)
    number, names = pd.factorize(predicted.obs[SOURCE])
    unsaid = number < 0
    number[unsaid] = len(names) + np.arange(unsaid.sum())
    return number


def _check(predictions: Mapping[str, AnnData], observed: AnnData, control: AnnData) -> None:
    """Raise a ValueError if there are too few cells, or genes differ."""
    sides = {"observed": observed, "control": control} | dict(predictions)
    for name, cells in sides.items():
        n = _source(cells).max(initial=-1) + 1
        if n < 2:
            raise ValueError(
                f"{name!r} has {n} cells; at least two are needed. Several draws for one control cell count as one."
            )
        if not cells.var_names.equals(observed.var_names):
            raise ValueError(
                f"{name!r} has other genes than 'observed', or another order of genes. Select the same genes."
            )
