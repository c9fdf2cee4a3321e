"""How near predicted cells come to real ones: arrays in, numbers out.

Cells are (n, g) arrays of expression, in log-normalised counts as a rule. Most figures need no more of them than the
moments of each gene, so that a bootstrap is a product of matrices.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances

N_TOP = 100  # differentially expressed genes
MAX_CELLS = 1000  # whose distances are looked at


class Moments(NamedTuple):
    """Mean and variance of each gene (..., g) over n cells."""

    mean: np.ndarray
    variance: np.ndarray
    n: int


class Trio(NamedTuple):
    """What a prediction is judged by: predicted cells, real ones, and the control cells both are set off against."""

    predicted: Moments
    observed: Moments
    control: Moments


def moments(x: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Of cells (n, g); with weights (b, n) that sum to 1, of b resampled sets of them: (b, g)."""
    if weights is None:
        weights = np.full((1, len(x)), 1 / len(x))
        return Moments(*(value[0] for value in moments(x, weights)[:2]), len(x))
    x = np.asarray(x, dtype=np.float64)
    mean = weights @ x
    return Moments(mean, np.maximum(weights @ x**2 - mean**2, 0), len(x))


def de_statistic(a: Moments, b: Moments) -> np.ndarray:
    """Welch's t of each gene (..., g) of a over b; 0 where neither varies."""
    error = np.sqrt(a.variance / max(a.n - 1, 1) + b.variance / max(b.n - 1, 1))
    return np.divide(a.mean - b.mean, error, out=np.zeros_like(error), where=error > 0)


def de_genes(a: Moments, b: Moments, n_top: int = N_TOP) -> np.ndarray:
    """The n_top genes (n_top,) that differ most, by the size of Welch's t."""
    return np.argsort(-np.abs(de_statistic(a, b)), kind="stable")[:n_top]


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, along the last axis (...,); 0 where one side is constant."""
    a, b = (value - value.mean(-1, keepdims=True) for value in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.zeros_like(size), where=size > 0)


def pearson_of_change(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Pearson's correlation of predicted and real change of the means over control (...,); 0 for no change."""
    change, real = (side.mean - trio.control.mean for side in (trio.predicted, trio.observed))
    return correlation(change[..., genes], real[..., genes])


def r2_of_means(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Squared correlation of predicted and real means (...,), as in the scGen paper."""
    return correlation(trio.predicted.mean[..., genes], trio.observed.mean[..., genes]) ** 2


def r2_of_variances(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Squared correlation of predicted and real variances (...,)."""
    return correlation(trio.predicted.variance[..., genes], trio.observed.variance[..., genes]) ** 2


def mse_of_means(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Mean squared difference of predicted and real means (...,)."""
    return ((trio.predicted.mean - trio.observed.mean)[..., genes] ** 2).mean(-1)


def de_overlap(trio: Trio, n_top: int = N_TOP) -> np.ndarray:
    """Share of the n_top genes that really change most which are among those predicted to, in the same direction."""
    tops = []
    for side in (trio.observed, trio.predicted):
        t = de_statistic(side, trio.control)
        top = np.argsort(-np.abs(t), axis=-1, kind="stable")[..., :n_top]
        sign = np.zeros_like(t)
        np.put_along_axis(sign, top, np.take_along_axis(np.sign(t), top, -1), -1)
        tops.append(sign)
    return (tops[0] * tops[1] > 0).sum(-1) / n_top


def energy_distance(
    distances: np.ndarray, source: np.ndarray, weights: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """2 E d(a, b) - E d(a, a') - E d(b, b'), without bias: about 0 for two samples of the same cells (Szekely 2013).

    Parameters
    ----------
    distances
        (n + m, n + m) of all cells, the n of sample a first.
    source
        (n,) what each cell of a was made from. Two of one source are alike: they are not compared with each other.
    weights
        (b, n) and (b, m), of resampled sets; ``None`` takes each cell once.

    Returns
    -------
    (b,), or a scalar; NaN where all that was drawn of a sample is one cell.
    """
    n, m = len(source), len(distances) - len(source)
    if weights is None:
        even = (np.full((1, size), 1 / size) for size in (n, m))
        return energy_distance(distances, source, tuple(even))[0]

    def mean(a: np.ndarray, b: np.ndarray, block: np.ndarray) -> np.ndarray:
        return ((a @ block) * b).sum(-1)

    def within(w: np.ndarray, block: np.ndarray, source: np.ndarray) -> np.ndarray:
        apart = source[:, None] != source
        total, share = mean(w, w, block * apart), mean(w, w, apart)
        return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0)

    a, b = weights
    own = within(a, distances[:n, :n], source) + within(b, distances[n:, n:], np.arange(m))
    return 2 * mean(a, b, distances[:n, n:]) - own


def cell_distances(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances between all cells of two samples, at most 1,000 of each, and which ones of the first."""
    rng = np.random.default_rng(seed)
    chosen, others = (
        np.arange(len(x)) if len(x) <= MAX_CELLS else rng.choice(len(x), MAX_CELLS, replace=False) for x in (a, b)
    )
    return pairwise_distances(np.concatenate([a[chosen], b[others]])), chosen


def resampling(source: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (b, n) of bootstrap samples of n cells; those of one source (n,) come and go together."""
    _, which, size = np.unique(source, return_inverse=True, return_counts=True)
    times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), n_resamples)[:, which]
    return times / times.sum(1, keepdims=True)
