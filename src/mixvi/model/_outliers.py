"""New cells beside held-out cells of the training: p-values, prediction sets; methods of models with a posterior."""

from collections.abc import Sequence
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control

from mixvi._checks import check_number
from mixvi._warnings import warn
from mixvi.cluster.conformal import likeliest, thresholds
from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.model._novelty import MIN_HELD_OUT, Novelty, check_held_out
from mixvi.model.streaming import blocks

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._gmvae import GMVAE

OUTLIER_LEVEL = 0.01  # p-value below which a prediction set is empty


def get_outlier_p(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Probability that a cell drawn from the reference has at least this cell's outlier factor. Low: like nothing seen.

    Each cell has a local outlier factor in the latent space: its mean distance to the 15 nearest training cells,
    divided by the spacing of cells around it. The spacing is the geometric mean of that of the training cells and that
    of the query. The factor is compared with that of validation cells, after a regression on the log library size. So a
    shallow cell is not an outlier for being shallow.

    In a new batch, the median factor, and the spread below it, are brought down to those of the validation cells. So
    most cells of a new batch must be of known types.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.

    Returns
    -------
    (n,) p-values, at least 1 / (m + 1) with m validation cells. If the query is like the reference in batches, genes
    and shares of cell types, they are uniform: about a share of 0.05 is below 0.05. In a query of one cell type, it is
    more. In a new batch, it is about 0.05 over all types, and more in some of them.

    Raises
    ------
    ValueError
        If fewer than 20 cells were held out in training.

    Notes
    -----
    The p-value of a cell depends on the other cells of the query, up to as many as the validation cells. So pass cells
    together that belong together. A type that differs from a known one in few genes is often encoded as the known one,
    and its p-values are then uniform, too.
    """
    novelty, found, start = Novelty(model, adata, indices), [], 0
    for block in blocks(model, novelty.traits_and_latent, adata, indices, batch_size, minified=True):
        end = start + len(block)
        found.append(novelty.p(block[:, :2], block[:, 2:], novelty.query[start:end]))
        start = end
    return np.concatenate(found)


def is_new(p: np.ndarray, fdr: float) -> np.ndarray:
    """Which cells are like nothing seen, by the procedure of Benjamini and Hochberg.

    Parameters
    ----------
    p
        (n,) p-values.
    fdr
        Expected share of known cells among those that are called new.

    Returns
    -------
    (n,) whether a cell is new.
    """
    check_number("new_at", fdr, above=0, below=1)
    return false_discovery_control(p) <= fdr


def new_groups(latent: np.ndarray, taken: Sequence[str], seed: int = 0) -> pd.Categorical:
    """Groups of new cells that are near each other: ``"new 0"``, the largest, ``"new 1"`` and so on.

    Parameters
    ----------
    latent
        (n, d) latent means of the new cells, at least one.
    taken
        Names of clusters, which the groups must not have.
    seed
        Seed of Leiden.
    """
    codes = leiden(shared_neighbors(latent), seed=seed)
    free = (name for k in count() if (name := f"new {k}") not in taken)
    return pd.Categorical.from_codes(codes, list(islice(free, codes.max() + 1)))


def predict_set(
    model: "GMVAE",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    coverage: float = 0.9,
    level: float = OUTLIER_LEVEL,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """The smallest set of classes, or clusters, that holds the right one with a given probability.

    With labels, the sets are calibrated on held-out labelled cells (split conformal prediction), for each class that
    has enough of them. The promise holds for cells like those of the training. Without labels, a set holds the
    likeliest clusters: as few as have calibrated probabilities that sum up to the coverage.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    coverage
        Share of cells whose set is to hold the right class, above 0 and below 1.
    level
        Cells with a p-value of `get_outlier_p` below it get an empty set; 0 for none.

    Returns
    -------
    Table (n, K) of whether a class or cluster is in the set of a cell.

    Raises
    ------
    ValueError
        If fewer than 20 cells were held out in training, or ``coverage`` and ``level`` leave no room: their sum must be
        below 1.
    """
    check_number("coverage", coverage, above=0, below=1)
    check_number("level", level, least=0, below=1 - coverage)
    held_out = check_held_out(model)
    if 0 < level <= (least := 1 / (len(held_out["depth"]) + 1)):
        warn(
            f"No p-value can be below level={level}: with {round(1 / least) - 1} held-out cells, the lowest is "
            f"{least:.3f}. So level makes no set empty."
        )
    table = pd.DataFrame(model.predict(adata, indices, soft=True, batch_size=batch_size))
    p = table.to_numpy()
    label = held_out.get("label", np.zeros(0))
    if (label >= 0).sum() >= MIN_HELD_OUT:
        known = label >= 0
        within = p >= thresholds(held_out["probabilities"][known], label[known], coverage + level)
    else:
        within = likeliest(p, coverage + level)
    if level > 0:
        within[model.get_outlier_p(adata, indices, batch_size) < level] = False
    return pd.DataFrame(within, table.index, table.columns)
