"""P-values of the cells of a query: how unlike the reference they are, beside its held-out cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from mixvi.cluster.graph import N_NEIGHBORS
from mixvi.cluster.outliers import conformal_p, local_outlier_factor, neighbor_distances, standardise
from mixvi.data import as_positions
from mixvi.model._predict import cluster_probabilities, log_responsibilities
from mixvi.model.registration import registered
from mixvi.model.streaming import collect
from mixvi.module import Cells, ELBOModule
from mixvi.module.priors import Flat

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

MAX_HELD_OUT = 2000  # held-out cells that are kept with a model; the standard error of a p-value of 0.05 is then 0.005
MAX_REFERENCE = 5000  # training cells that are kept with a model
MIN_HELD_OUT = 20  # with fewer, no p-value can be below 0.05


class Novelty:
    """How unlike the reference the cells of one query are.

    The score of a cell is its local outlier factor in the latent space. It takes the spacing of the reference and that
    of the query. For the latter, a sample of the query is kept, of as many cells as were held out, or fewer. Held-out
    cells are scored in the same way, as a query of as many cells. A cell that is not in its sample takes the place of
    one that is, so all cells have as many others beside them.

    A new batch shifts and spreads the scores of all its cells. So the lower half of its scores is taken for those of
    known cells (empirical null, Efron 2004). Its median, and its spread below the median, are brought down to those of
    the held-out cells. At least 20 cells of the batch must be among 2,000 cells of the query. This assumes that most
    cells of a new batch are of known types.

    Parameters
    ----------
    model
        Trained model that remembers held-out cells.
    adata, indices
        The query, as in ``get_latent_representation``.

    Raises
    ------
    ValueError
        If the model remembers no held-out cells.
    """

    def __init__(
        self, model: "LatentModel", adata: AnnData | None = None, indices: Sequence[int] | np.ndarray | None = None
    ):
        known = check_held_out(model)
        self.module, self.new = model.module, None
        if model.known_levels_ is not None and not model.known_levels_.all():
            self.new = torch.from_numpy(~model.known_levels_)  # (q,) conditions that the reference does not have
        self.reference, self.spacing, held_out = (
            torch.as_tensor(known[key], device=model.device) for key in ("reference", "spacing", "latent")
        )
        self.query = as_positions(indices, registered(model, adata, True).adata.n_obs)  # row numbers of its cells
        rows, rng = np.unique(self.query), np.random.default_rng(0)  # a cell that is passed twice is one cell
        sample, n_fellows = rng.permutation(rows)[:MAX_HELD_OUT], min(len(rows), len(held_out))
        some = np.sort(rng.permutation(len(held_out))[:n_fellows])
        self.held_out = self._scores(held_out, np.arange(len(held_out)), held_out[some], some), known["depth"]
        self.rows, sample = np.sort(sample[:n_fellows]), np.sort(sample)
        found = collect(model, self.traits_and_latent, adata, sample, minified=True)
        latent = torch.as_tensor(found[:, 2:], device=model.device)
        self.fellows = latent[np.searchsorted(sample, self.rows)]
        score = self._scores(latent, sample, self.fellows, self.rows)
        score, usual = standardise(score, found[:, 0], *self.held_out)
        self.nulls = {}  # shift and scale of the scores of new levels that have enough cells
        for level in np.unique(found[found[:, 1] >= 0, 1]):
            of_level = score[found[:, 1] == level]
            if len(of_level) >= MIN_HELD_OUT:
                self.nulls[level] = _null(of_level, usual)

    def traits_and_latent(self, cells: Cells) -> Tensor:
        """Traits and latent means of cells (n, 2 + d)."""
        return torch.cat([self.traits(cells), self.module.encode(cells).loc], 1)

    def traits(self, cells: Cells) -> Tensor:
        """Log library size (0 without counts) and number of the new level (-1 for none) of cells (n, 2)."""
        level = torch.full_like(cells.library, -1.0)
        if self.new is not None:
            new = cells.c.bool() & self.new.to(cells.c.device)
            level = torch.where(new.any(1), new.int().argmax(1), -1).to(level).unsqueeze(1)
        return torch.cat([depth(self.module, cells), level], 1)

    def p(self, traits: np.ndarray, latent: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """P-values (n,) of cells of the query.

        Parameters
        ----------
        traits, latent
            (n, 2) and (n, d) from `traits_and_latent`.
        rows
            (n,) row numbers of these cells in the AnnData.
        """
        view = torch.as_tensor(latent, device=self.fellows.device)
        score = self._scores(view, rows, self.fellows, self.rows)
        score, usual = standardise(score, traits[:, 0], *self.held_out)
        shift, scale = np.array([self.nulls.get(level, (0.0, 1.0)) for level in traits[:, 1]]).T
        return conformal_p((score - shift) / scale, usual)

    def _scores(self, view: Tensor, rows: np.ndarray, fellows: Tensor, fellow_rows: np.ndarray) -> np.ndarray:
        """Local outlier factors (n,) of cells beside m fellows. Row numbers tell which cells are the same."""
        around, own = None, np.searchsorted(fellow_rows, rows) % len(fellow_rows)
        if len(fellows) > 1:  # neighbours that are the same share of both samples
            n_neighbors = max(round(N_NEIGHBORS * len(fellows) / len(self.reference)), 1)
            around, _ = neighbor_distances(view, fellows, own, n_neighbors)
        return local_outlier_factor(view, self.reference, self.spacing, around).cpu().numpy()


def _null(score: np.ndarray, usual: np.ndarray) -> tuple[float, float]:
    """Shift and scale that give scores (n,) the median, and the spread below it, of usual scores (m,)."""
    medians = np.median(score), np.median(usual)
    spreads = [np.maximum(median - x, 0).mean() for median, x in zip(medians, (score, usual), strict=True)]
    scale = max(spreads[0] / max(spreads[1], 1e-12), 1.0)
    return max(medians[0] - scale * medians[1], 0.0), scale


def depth(module: ELBOModule, cells: Cells) -> Tensor:
    """Log library size of cells (n, 1); 0 without counts.

    Parameters
    ----------
    module
        Module whose likelihood says whether values are counts.
    cells
        n cells.
    """
    return cells.library.log() if module.likelihood.support == "count" else torch.zeros_like(cells.library)


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
    z, latent = (
        collect(model, lambda cells: model.module.encode(cells).loc, None, some, minified=True)
        for some in (reference, rows)
    )
    spacing, _ = neighbor_distances(torch.as_tensor(z), torch.as_tensor(z), np.arange(len(z)))
    model.held_out_ = {"reference": z, "spacing": spacing.numpy(), "latent": latent}
    model.held_out_["depth"] = collect(model, lambda cells: depth(model.module, cells), None, rows, minified=True)[:, 0]
    if model.module.layout.n_labels:
        log_r = collect(model, log_responsibilities(model), None, rows)
        model.held_out_["label"] = collect(model, lambda cells: cells.label, None, rows)
        model.held_out_["probabilities"] = cluster_probabilities(model, log_r, model.n_clusters)


def has_held_out(model: "LatentModel") -> bool:
    """Whether a model can give p-values: it knows held-out cells."""
    return "latent" in (model.held_out_ or {})


def check_held_out(model: "LatentModel") -> dict[str, np.ndarray]:
    """Values of the held-out cells that are saved with the model.

    Raises
    ------
    ValueError
        If it remembers none.
    """
    if not has_held_out(model):
        raise ValueError(
            f"This {type(model).__name__} has no p-values. They need {MIN_HELD_OUT} validation cells or more, and a "
            "model that was trained by this version of mixvi. Train it again, with validation cells (the default)."
        )
    return model.held_out_ or {}
