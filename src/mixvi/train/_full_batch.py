"""Full-batch training of linear Gaussian models, whose bound has no noise: down to the optimum, not near it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from scvi.utils import track
from torch import Tensor, nn

from mixvi._warnings import warn
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.priors import Flat

ITERATIONS_AN_EPOCH = 20
MAX_GENES_TO_WHITEN = 5_000  # the whitening map is genes x genes
RIDGE = 0.1  # of the variance of each gene
NOTHING = 1e-6  # a loss that small has no share to lose: cells are rebuilt


def fit_full_batch(
    module: ELBOModule,
    cells: Cells,
    max_epochs: int = 500,
    kl_weight: float = 1.0,
    weight_decay: float = 0.0,
    tolerance: float = 1e-10,
    progress: bool = False,
    fresh: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, pd.DataFrame]:
    """Maximise the bound of all cells at once with L-BFGS (Nocedal & Wright 2006, chapter 7; strong Wolfe line search).

    The descent would be as badly conditioned as genes are correlated, far from 0 or unlike in scale. So the model
    meanwhile describes cells that are centred and divided by one number, and its encoder reads them whitened; both are
    folded into the weights at the end: the same model and the same bound, reached in far fewer steps. With weight
    decay, which would notice, it takes cells as they are.

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
    fresh
        The weights are random, and taken for those of the standardised cells; ``False`` goes on from a trained model.
    stop
        Asked after each epoch whether to end there.

    Returns
    -------
    History by name, one row an epoch, as scvi-tools keeps it: ``elbo_train`` (negative, nats a cell) and its terms.
    """
    module.train()
    if weight_decay > 0:
        _match_noise(module, cells)
        rows = _descend(module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress, stop)
    else:
        with _standardised(module, cells, fresh) as (standard, log_scale):
            _match_noise(module, standard)
            rows = _descend(module, standard, max_epochs, kl_weight, 0.0, tolerance, progress, stop, log_scale)
            _match_noise(module, standard)  # of an AE, which was fitted without regard to it
    module.eval()
    history = pd.DataFrame(rows).rename_axis("epoch")
    return {name: history[[name]] for name in history}


def _descend(
    module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress, stop, log_scale=0.0
) -> list[dict[str, float]]:
    """L-BFGS down to the tolerance; the terms of the bound after each epoch, of cells times exp(``log_scale``)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=ITERATIONS_AN_EPOCH, history_size=100, line_search_fn="strong_wolfe",
        tolerance_grad=1e-14, tolerance_change=1e-18,
    )  # fmt: skip
    terms: dict[str, Tensor] = {}
    g = cells.x.shape[1]
    only_error = isinstance(module.prior, Flat) and not weight_decay  # then sigma has no say, and axes are free

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_px, kl_terms = module.bound(cells)
        kl = sum(kl_terms.annealed.values(), torch.zeros_like(log_px))
        if only_error:
            # orthonormal axes of the white cells, for which an optimum exists too, keep the descent straight
            v = module.encoder.loc.weight[:, :g]
            value = _squared_error(module, cells, log_px) / 2 + (v @ v.T - torch.eye(len(v)).to(v)).square().sum()
        else:
            penalty = weight_decay / 2 * sum(p.square().sum() for p in parameters)
            value = (kl_weight * kl - log_px).mean() + penalty
        value.backward()
        error = g * log_scale - log_px
        terms.update({"reconstruction_loss": error, "elbo": kl + error, **kl_terms.annealed})
        return value.detach()

    rows, before = [], torch.inf
    for _ in track(range(max_epochs), description="L-BFGS", disable=not progress):
        optimizer.step(loss)
        after = loss().item()
        rows.append({f"{name}_train": term.mean().item() for name, term in terms.items()})
        if stop() or not before - after > tolerance * max(abs(after), NOTHING):
            return rows
        before = after
    warn(f"L-BFGS had not converged after {max_epochs} epochs; train with a larger max_epochs.")
    return rows


def _squared_error(module: ELBOModule, cells: Cells, log_px: Tensor) -> Tensor:
    """Of a cell, on average, out of log N(x; mu, sigma^2)."""
    log_sigma = module.likelihood.log_sigma
    log_norm = cells.x.shape[1] * (log_sigma + math.log(2 * math.pi) / 2)
    return -2 * (2 * log_sigma).exp() * (log_px + log_norm).mean()


@torch.no_grad()
def _match_noise(module: ELBOModule, cells: Cells) -> None:
    """A learned sigma takes its best value for the other parameters; too small a one overflows the first step."""
    log_sigma = module.likelihood.log_sigma
    if log_sigma.requires_grad:
        log_px, _ = module.bound(cells)
        log_sigma.copy_((_squared_error(module, cells, log_px) / cells.x.shape[1]).log() / 2)


@contextmanager
def _standardised(module: ELBOModule, cells: Cells, fresh: bool) -> Iterator[tuple[Cells, float]]:
    """Cells (x - mean) / s, of which the encoder reads L^-1 (x - mean) = white, for weights that fit them; and log s.

    N(x; W z + A c + b, sigma^2) is N((x - mean) / s; (W z + A c + b - mean) / s, sigma^2 / s^2) / s, and
    V x + v is V L white + v + V mean.
    """
    g = cells.x.shape[1]
    mean = cells.x.mean(0)
    centred = cells.x - mean
    s = centred.square().mean().sqrt()
    s = s if s > 0 else torch.ones_like(s)
    to_white, whiten, from_white = _whitening(centred, s)
    heads = [head for head in module.encoder.children() if isinstance(head, nn.Linear)]
    decoder, log_sigma = module.likelihood.loc, module.likelihood.log_sigma
    with torch.no_grad():
        if not fresh:
            for head in heads:  # (d, g + q)
                head.bias += head.weight[:, :g] @ mean
                head.weight[:, :g] = to_white(head.weight[:, :g])
            decoder.weight /= s
            decoder.bias.copy_((decoder.bias - mean) / s)
        log_sigma -= s.log()
    try:
        yield cells._replace(x=centred / s, seen=whiten(centred)), s.log().item()
    finally:  # also where the user breaks off: the weights are those of plain cells again
        with torch.no_grad():
            for head in heads:
                head.weight[:, :g] = from_white(head.weight[:, :g])
                head.bias -= head.weight[:, :g] @ mean
            decoder.weight *= s
            decoder.bias.copy_(decoder.bias * s + mean)
            log_sigma += s.log()


def _whitening(centred: Tensor, s: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Weights for white cells from weights for centred ones, white cells, and weights for centred cells."""
    g = centred.shape[1]
    floor = torch.finfo(s.dtype).eps * s.square()  # for a gene that does not vary
    if g > MAX_GENES_TO_WHITEN:
        scale = (centred.square().mean(0) + floor).sqrt()
        return scale.mul, lambda x: x / scale, lambda w: w / scale
    covariance = centred.T @ centred / len(centred)
    factor = torch.linalg.cholesky(covariance + torch.diag(RIDGE * covariance.diagonal() + floor))  # L, (g, g)
    return (
        lambda w: w @ factor,
        lambda x: torch.linalg.solve_triangular(factor, x.T, upper=False).T,
        lambda w: torch.linalg.solve_triangular(factor, w, upper=False, left=False),
    )
