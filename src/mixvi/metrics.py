"""Metrics of predicted cells against real cells: arrays in, numbers out.

Cells are (n, g) arrays of expression, usually log-normalised counts. Most metrics need only the moments of each gene,
so a bootstrap is a product of matrices. Leading dimensions (...) are resampled sets.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances

N_TOP = 100  # differentially expressed genes
MAX_COMPARED = 1000  # of each sample, for distances between cells


class Moments(NamedTuple):
    """Mean and variance of each gene (..., g) over n cells."""

    mean: np.ndarray
    variance: np.ndarray
    n: int


class Trio(NamedTuple):
    """Moments of predicted cells, of real cells, and of the control cells from which both are changes."""

    predicted: Moments
    observed: Moments
    control: Moments


def moments(x: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Mean and variance of each gene.

    Parameters
    ----------
    x
        (n, g) cells.
    weights
        (b, n) weights of the cells in each of b resampled sets; rows sum to 1. ``None`` is one set of all cells.

    Returns
    -------
    Moments (b, g), or (g,) without weights. The variance is divided by n, not n - 1.
    """
    if weights is None:
        weights = np.full((1, len(x)), 1 / len(x))
        one = moments(x, weights)
        return Moments(one.mean[0], one.variance[0], len(x))
    x = np.asarray(x, dtype=np.float64)
    mean = weights @ x
    return Moments(mean, np.maximum(weights @ x**2 - mean**2, 0), len(x))


def de_statistic(a: Moments, b: Moments) -> np.ndarray:
    """Welch's t of each gene.

    Parameters
    ----------
    a, b
        Moments (..., g) of the two groups of cells.

    Returns
    -------
    (..., g) statistics, positive where the mean of ``a`` is higher; 0 where neither group varies.
    """
    error = np.sqrt(a.variance / max(a.n - 1, 1) + b.variance / max(b.n - 1, 1))
    return np.divide(a.mean - b.mean, error, out=np.zeros_like(error), where=error > 0)


def de_genes(a: Moments, b: Moments, n_top: int = N_TOP) -> np.ndarray:
    """Genes that differ most between two groups of cells, by the absolute value of Welch's t.

    Parameters
    ----------
    a, b
        Moments (g,) of the two groups.
    n_top
        Number of genes.

    Returns
    -------
    (n_top,) column numbers of the genes, or (g,) if there are fewer; the largest difference first.
    """
    return np.argsort(-np.abs(de_statistic(a, b)), kind="stable")[:n_top]


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis.

    Parameters
    ----------
    a, b
        (..., g) values.

    Returns
    -------
    (...,) correlations; 0 where one side is constant.
    """
    a, b = (value - value.mean(-1, keepdims=True) for value in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.zeros_like(size), where=size > 0)


def pearson_of_change(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Pearson's correlation over genes of predicted and real change of the means from control.

    Parameters
    ----------
    trio
        Moments (..., g) of predicted, real and control cells.
    genes
        (m,) column numbers of the genes to compare, or a mask (g,); all by default.

    Returns
    -------
    (...,) correlations; 0 where a change is constant over genes.
    """
    change, real = (side.mean - trio.control.mean for side in (trio.predicted, trio.observed))
    return correlation(change[..., genes], real[..., genes])


def r2_of_means(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Squared correlation over genes of predicted and real means, as in the scGen paper.

    Parameters
    ----------
    trio
        Moments (..., g) of predicted, real and control cells.
    genes
        (m,) column numbers of the genes to compare, or a mask (g,); all by default.

    Returns
    -------
    (...,) values in [0, 1].
    """
    return correlation(trio.predicted.mean[..., genes], trio.observed.mean[..., genes]) ** 2


def r2_of_variances(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Squared correlation over genes of predicted and real variances.

    Parameters
    ----------
    trio
        Moments (..., g) of predicted, real and control cells.
    genes
        (m,) column numbers of the genes to compare, or a mask (g,); all by default.

    Returns
    -------
    (...,) values in [0, 1].
    """
    return correlation(trio.predicted.variance[..., genes], trio.observed.variance[..., genes]) ** 2


def mse_of_means(trio: Trio, genes: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Mean squared difference over genes of predicted and real means.

    Parameters
    ----------
    trio
        Moments (..., g) of predicted, real and control cells.
    genes
        (m,) column numbers of the genes to compare, or a mask (g,); all by default.

    Returns
    -------
    (...,) values, at least 0.
    """
    return ((trio.predicted.mean - trio.observed.mean)[..., genes] ** 2).mean(-1)


def de_overlap(trio: Trio, n_top: int = N_TOP) -> np.ndarray:
    """Overlap of the genes with the largest real and the largest predicted change from control, by Welch's t.

    Parameters
    ----------
    trio
        Moments (..., g) of predicted, real and control cells.
    n_top
        Number of genes in each list.

    Returns
    -------
    (...,) number of genes in both lists with the same direction of change, divided by ``n_top``.
    """
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
    """2 E d(a, b) - E d(a, a') - E d(b, b'), without bias: about 0 for samples of one distribution (Szekely 2013).

    Parameters
    ----------
    distances
        (n + m, n + m) distances between all cells; the n cells of sample a come first.
    source
        (n,) number of the cell from which each cell of sample a was predicted. Cells of one source are not compared.
    weights
        (b, n) and (b, m) weights of the cells in resampled sets; rows sum to 1. ``None`` takes each cell once.

    Returns
    -------
    (b,) distances, or a scalar without weights. NaN where a resampled set has cells of one source only.
    """
    n, m = len(source), len(distances) - len(source)
    if weights is None:
        even = np.full((1, n), 1 / n), np.full((1, m), 1 / m)
        return energy_distance(distances, source, even)[0]

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
    """Euclidean distances between all cells of two samples, with at most 1,000 random cells of each.

    Parameters
    ----------
    a, b
        (n, g) and (m, g) cells.
    seed
        Seed of the draw.

    Returns
    -------
    Distances (n' + m', n' + m') of the chosen cells, those of ``a`` first, and the row numbers (n',) of these in ``a``.
    """
    rng = np.random.default_rng(seed)
    chosen, others = (
        np.arange(len(x)) if len(x) <= MAX_COMPARED else rng.choice(len(x), MAX_COMPARED, replace=False) for x in (a, b)
    )
    return pairwise_distances(np.concatenate([a[chosen], b[others]])), chosen


def resampling(source: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of cells in bootstrap samples. Cells of one source are drawn together.

    Parameters
    ----------
    source
        (n,) source of each cell, such as the number of the cell from which it was predicted.
    n_resamples
        Number of samples b.
    rng
        Random generator.

    Returns
    -------
    (b, n) weights; rows sum to 1.
    """
    _, which, size = np.unique(source, return_inverse=True, return_counts=True)
    times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), n_resamples)[:, which]
    return times / times.sum(1, keepdims=True)
