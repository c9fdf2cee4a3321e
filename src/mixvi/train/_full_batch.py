"""Full-batch training of linear Gaussian models, whose bound has no noise: down to the optimum, not near it."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from scvi.utils import track
from torch import Tensor, nn

from mixvi.module._elbo import Cells, ELBOModule
from mixvi.module.priors import Flat

logger = logging.getLogger(__name__)

ITERATIONS_AN_EPOCH = 20
MAX_GENES_TO_WHITEN = 5_000  # the whitening map is genes x genes
RIDGE = 0.1  # of the mean variance of a gene


def fit_full_batch(
    module: ELBOModule,
    cells: Cells,
    max_epochs: int = 500,
    kl_weight: float = 1.0,
    weight_decay: float = 0.0,
    tolerance: float = 1e-10,
    progress: bool = False,
) -> dict[str, pd.DataFrame]:
    """Maximise the bound of all cells at once with L-BFGS (Nocedal & Wright 2006, chapter 7; strong Wolfe line search).

    Gradients of an encoder's first layer are as badly conditioned as the genes are correlated. The encoder therefore
    reads whitened cells while it trains, and the whitening is folded into its weights at the end: the same model and
    the same bound, reached in far fewer steps. With weight decay, which would notice, it reads cells as they are.

    Parameters
    ----------
    module, cells
        A module whose encoder and decoder are linear, and all its cells; in double precision, on one device.
    max_epochs
        At most so many times 20 iterations; it ends before, where the loss no longer falls.
    kl_weight
        Beta, the weight of the annealed terms.
    weight_decay
        Adds ``weight_decay / 2`` times the squared norm of all parameters to the loss per cell, as Adam's does.
    tolerance
        It has converged where 20 iterations lower the loss by less than this share of it.
    progress
        Show a bar.

    Returns
    -------
    History by name, one row an epoch, as scvi-tools keeps it: ``elbo_train`` (negative, nats a cell) and its terms.
    """
    module.train()
    _match_noise(module, cells)
    if weight_decay > 0 or cells.seen.shape[1] > MAX_GENES_TO_WHITEN:
        rows = _descend(module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress)
    else:
        with _whitened(module, cells) as white:
            rows = _descend(module, white, max_epochs, kl_weight, 0.0, tolerance, progress, gauge=True)
    module.eval()
    history = pd.DataFrame(rows).rename_axis("epoch")
    return {name: history[[name]] for name in history}


def _descend(
    module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress, gauge=False
) -> list[dict[str, float]]:
    """L-BFGS down to the tolerance; the terms of the bound after each epoch."""
    gauge = gauge and isinstance(module.prior, Flat)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=ITERATIONS_AN_EPOCH, history_size=100, line_search_fn="strong_wolfe",
        tolerance_grad=1e-14, tolerance_change=1e-18,
    )  # fmt: skip
    terms: dict[str, Tensor] = {}

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_px, kl_terms = module.bound(cells)
        kl = sum(kl_terms.annealed.values(), torch.zeros_like(log_px))
        penalty = weight_decay / 2 * sum(p.square().sum() for p in parameters)
        value = (kl_weight * kl - log_px).mean() + penalty
        if gauge:  # an AE may have any latent axes: these, for which an optimum exists too, keep the descent straight
            v = module.encoder.loc.weight[:, : cells.seen.shape[1]]
            value = value + (v @ v.T - torch.eye(len(v)).to(v)).square().sum()
        value.backward()
        terms.update({"reconstruction_loss": -log_px, "elbo": kl - log_px, **kl_terms.annealed})
        return value.detach()

    rows, before = [], torch.inf
    for _ in track(range(max_epochs), description="L-BFGS", disable=not progress):
        optimizer.step(loss)
        after = loss().item()
        rows.append({f"{name}_train": term.mean().item() for name, term in terms.items()})
        if not before - after > tolerance * abs(after):
            return rows
        before = after
    logger.warning("L-BFGS had not converged after %d epochs; train with a larger max_epochs.", max_epochs)
    return rows


@torch.no_grad()
def _match_noise(module: ELBOModule, cells: Cells) -> None:
    """A learned sigma starts at its best value for the other parameters; too small a one overflows the first step."""
    log_sigma = module.likelihood.log_sigma
    if log_sigma.requires_grad:
        log_px, _ = module.bound(cells)
        log_norm = cells.x.shape[1] * (log_sigma + math.log(2 * math.pi) / 2)
        error = -2 * (2 * log_sigma).exp() * (log_px + log_norm).mean()  # squared, of a cell
        log_sigma.copy_((error / cells.x.shape[1]).log() / 2)


@contextmanager
def _whitened(module: ELBOModule, cells: Cells) -> Iterator[Cells]:
    """Cells whose ``seen`` is white, for encoders that meanwhile hold weights for it: V x = (V L) (L^-1 x)."""
    g = cells.seen.shape[1]
    mean = cells.seen.mean(0)
    centred = cells.seen - mean
    covariance = centred.T @ centred / len(centred)
    ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(covariance.dtype).eps
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(g).to(covariance))  # L, (g, g)
    heads = [head for head in module.encoder.children() if isinstance(head, nn.Linear)]
    with torch.no_grad():
        for head in heads:  # (d, g + q)
            head.bias += head.weight[:, :g] @ mean
            head.weight[:, :g] = head.weight[:, :g] @ factor
    try:
        yield cells._replace(seen=torch.linalg.solve_triangular(factor, centred.T, upper=False).T)
    finally:  # also where the user breaks off: the weights are those of plain cells again
        with torch.no_grad():
            for head in heads:
                head.weight[:, :g] = torch.linalg.solve_triangular(factor, head.weight[:, :g], upper=False, left=False)
                head.bias -= head.weight[:, :g] @ mean
