"""New cells beside held-out cells of the training: p-values, prediction sets; methods of models with a posterior."""

from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.stats import false_discovery_control
from torch import Tensor

from mixvi._checks import check_number
from mixvi._warnings import warn
from mixvi.cluster.conformal import likeliest, thresholds
from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.cluster.outliers import local_outlier_factor, neighbor_distances, outlier_p
from mixvi.model._predict import cluster_probabilities, log_responsibilities
from mixvi.model.streaming import collect
from mixvi.module import Cells
from mixvi.module.priors import Flat

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._gmvae import GMVAE

MAX_HELD_OUT = 2000  # held-out cells that are kept with a model; the standard error of a p-value of 0.05 is then 0.005
MAX_REFERENCE = 5000  # training cells that are kept with a model
MIN_HELD_OUT = 20  # with fewer, no p-value can be below 0.05
OUTLIER_LEVEL = 0.01  # p-value below which a prediction set is empty


def surprise(model: "LatentModel", z: Tensor, cells: Cells) -> Tensor:
    """Local outlier factor and log library size (n, 2). Without counts, the library size is 1.

    Parameters
    ----------
    model
        Trained model.
    z
        (n, d) latent means.
    cells
        n cells.

    Returns
    -------
    (n, 2), or NaN for a model without held-out cells.
    """
    library = cells.library.squeeze(1)
    depth = library.log() if model.module.likelihood.support == "count" else torch.zeros_like(library)
    known = model.held_out_ or {}
    if not has_held_out(model):
        return torch.full_like(cells.library, torch.nan).expand(-1, 2)
    reference, spacing = (torch.as_tensor(known[key], device=z.device) for key in ("reference", "spacing"))
    return torch.stack([local_outlier_factor(z, reference, spacing), depth], 1)


def remember_held_out(model: "LatentModel") -> None:
    """Keep what p-values and prediction sets need of the validation cells, with the trained model.

    Parameters
    ----------
    model
        Trained model; its ``held_out_`` is set. It stays ``None`` if there is no posterior, or too few cells.
    """
    model.held_out_, rows = None, model.validation_indices
    if isinstance(model.module.prior, Flat) or rows is None or min(len(rows), len(model.train_indices)) < MIN_HELD_OUT:
        return
    rows, reference = (
        np.sort(np.random.default_rng(0).permutation(some)[:most])
        for some, most in ((rows, MAX_HELD_OUT), (model.train_indices, MAX_REFERENCE))
    )
    z = torch.as_tensor(collect(model, lambda cells: model.module.encode(cells).loc, None, reference, minified=True))
    spacing, _ = neighbor_distances(z, z, skip=1)
    model.held_out_ = {"reference": z.numpy(), "spacing": spacing.numpy()}
    model.held_out_["surprise"] = collect(model, _surprise_of(model), None, rows)
    if model.module.layout.n_labels:
        log_r = collect(model, log_responsibilities(model), None, rows)
        model.held_out_["label"] = collect(model, lambda cells: cells.label, None, rows)
        model.held_out_["probabilities"] = cluster_probabilities(model, log_r, model.n_clusters)


def get_outlier_p(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Probability that a cell drawn from the reference is at least as surprising as this one. Low: like nothing seen.

    The surprise of a cell is its local outlier factor in the latent space: its mean distance to the 15 nearest
    training cells, divided by the mean distance of these cells to their own neighbours. It is compared with that of
    validation cells, after a regression on the log library size. So a shallow cell is not an outlier for being shallow.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.

    Returns
    -------
    (n,) p-values, at least 1 / (m + 1) with m validation cells. Those of new cells of the known batches, with the genes
    of the reference, are uniform: about a share of 0.05 is below 0.05. In other batches it can be more.

    Raises
    ------
    ValueError
        If fewer than 20 cells were held out in training.

    Notes
    -----
    A type that differs from a known one in few genes is often encoded as the known one, and its p-values are then
    uniform, too.
    """
    check_held_out(model)
    return p_of(model, collect(model, _surprise_of(model), adata, indices, batch_size, minified=True))


def has_held_out(model: "LatentModel") -> bool:
    """Whether a model can give p-values: it knows held-out cells."""
    return "reference" in (model.held_out_ or {})


def check_held_out(model: "LatentModel") -> dict[str, np.ndarray]:
    """Values of the held-out cells that are saved with the model.

    Raises
    ------
    ValueError
        If it remembers none.
    """
    if not has_held_out(model):
        raise ValueError(
            f"This {type(model).__name__} has no p-values: fewer than {MIN_HELD_OUT} cells were held out in training. "
            "Train it with validation cells, the default, and with this version of mixvi."
        )
    return model.held_out_ or {}


def p_of(model: "LatentModel", found: np.ndarray) -> np.ndarray:
    """P-values (n,) from the result of `surprise` (n, 2).

    Parameters
    ----------
    model
        The model.
    found
        (n, 2) surprise and log library size.
    """
    known = check_held_out(model)["surprise"]
    return outlier_p(*found.T, *known.T)


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
    if 0 < level <= (least := 1 / (len(held_out["surprise"]) + 1)):
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


def _surprise_of(model: "LatentModel") -> Callable[[Cells], Tensor]:
    return lambda cells: surprise(model, model.module.encode(cells).loc, cells)
