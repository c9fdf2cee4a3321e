"""One table for all predictions, with how far its figures can be trusted."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from mixvi import metrics
from mixvi.metrics import Trio, moments
from mixvi.perturb._predictor import SOURCE, TARGET_SUM, expression, is_counts

INTERVAL = (2.5, 97.5)  # percentiles
MOST = 2 * np.log1p(TARGET_SUM)  # twice what a log-normalised value can be: baselines add to values
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

    The first four are given over all genes and over the ``n_top`` that really change most (by Welch's t).

    Parameters
    ----------
    predictions
        By name: what `Predictor.predict` gave, or other cells with such values in ``.X``. Where the real cells have
        counts, that is log(1 + counts per 10,000), or whole counts. Cells with the same
        ``.obs["mixvi_control_cell"]`` are several draws of one: the bootstrap keeps them together, and the energy
        distance does not compare them with each other.
    observed, control
        The real stimulated cells of the same kind, and the control cells; n x g with the same genes.
    layer
        Layer of these two with the values; ``None`` is ``.X``. Counts are log-normalised (`expression`).
    n_top
        Number of differentially expressed genes, at most half of all genes.
    n_resamples
        Bootstrap samples of the cells of all three.
    seed
        Of the bootstrap.

    Returns
    -------
    One row a figure: ``prediction``, ``metric``, ``genes`` (``"all"`` or ``"top 100"``, with ``n_top``), ``value``, and
    ``low`` and ``high``: 95 % of the bootstrap's figures, moved so that their mean is the value, because cells that are
    drawn again are noisier than those measured. It says how far the figure depends on which cells were measured.

    Raises
    ------
    ValueError
        If genes differ, there are fewer than two cells of one kind, or predictions are not on the scale of real cells.
    """
    _check(predictions, observed, control)
    n_top = max(min(n_top, observed.n_vars // 2), 1)
    rng, of_counts = np.random.default_rng(seed), is_counts(observed, layer) or is_counts(control, layer)
    real, before = (expression(cells, layer, of_counts) for cells in (observed, control))
    weights_real, weights_before = (metrics.resampling(np.arange(len(x)), n_resamples, rng) for x in (real, before))
    sides = moments(real), moments(before)
    resampled_sides = moments(real, weights_real), moments(before, weights_before)
    top = metrics.de_genes(*sides, n_top)
    rows = []
    for name, predicted in predictions.items():
        x = _log_normalised(name, predicted) if of_counts else expression(predicted, counts=False)
        source = _source(predicted)
        weights, n = metrics.resampling(source, n_resamples, rng), source.max() + 1
        trio, resampled = (
            Trio(one._replace(n=n), *others)
            for one, others in ((moments(x), sides), (moments(x, weights), resampled_sides))
        )
        for metric, genes, of in _figures(top, n_top):
            rows.append([name, metric, genes, *_interval(metric, float(of(trio)), of(resampled))])
        distances, chosen = metrics.cell_distances(x, real, seed)
        of_a, of_b = source[chosen], np.arange(len(distances) - len(chosen))
        pairs = tuple(metrics.resampling(of, n_resamples, rng) for of in (of_a, of_b))
        value, spread = (metrics.energy_distance(distances, of_a, weights) for weights in (None, pairs))
        rows.append([name, "energy distance", "all", *_interval("energy distance", float(value), spread)])
    return pd.DataFrame(rows, columns=["prediction", "metric", "genes", "value", "low", "high"])


def _log_normalised(name: str, predicted: AnnData) -> np.ndarray:
    x = expression(predicted)
    if x.max() > MOST:
        raise ValueError(
            f"{name!r} has values up to {x.max():.4g}, and log(1 + counts per 10,000) cannot exceed {MOST / 2:.3g}: it "
            "is not on the scale of the real cells. Use predict of mixvi.perturb, or log-normalise it "
            "(sc.pp.normalize_total to 1e4, sc.pp.log1p)."
        )
    return x


def _interval(metric: str, value: float, resampled: np.ndarray) -> tuple[float, float, float]:
    low, high = np.nanpercentile(resampled, INTERVAL) - np.nanmean(resampled) + value
    return value, *np.clip([low, high], *RANGES.get(metric, (-np.inf, np.inf)))


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


def _source(predicted: AnnData) -> np.ndarray:
    """Number of the control cell (m,) that each predicted cell was drawn for; a cell of its own where none is said."""
    if SOURCE not in predicted.obs:
        return np.arange(predicted.n_obs)
    number, names = pd.factorize(predicted.obs[SOURCE])
    unsaid = number < 0
    number[unsaid] = len(names) + np.arange(unsaid.sum())
    return number


def _check(predictions: Mapping[str, AnnData], observed: AnnData, control: AnnData) -> None:
    sides = {"observed": observed, "control": control} | dict(predictions)
    for name, cells in sides.items():
        n = _source(cells).max(initial=-1) + 1
        if n < 2:
            raise ValueError(
                f"{name!r} has {n} cells (draws of one not counted); there must be at least two to compare."
            )
        if not cells.var_names.equals(observed.var_names):
            raise ValueError(f"{name!r} has other genes than 'observed', or in another order; select the same genes.")
