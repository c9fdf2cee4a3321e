"""Full-batch training of linear Gaussian models. Their bound has no noise, so L-BFGS reaches the optimum."""

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
WHITENING_RIDGE = 0.1  # of the variance of each gene
NOTHING = 1e-6  # below this loss the reconstruction is exact, and changes are compared with this number


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

    The problem is badly conditioned if genes are correlated, far from 0 or of different scale. So the model is fitted
    to cells that are centred and divided by one number, and its encoder reads whitened cells. At the end, the weights
    are converted back. Model and bound are the same, but need far fewer steps. Weight decay depends on the scale of the
    weights. With it, the cells are used as they are.

    Parameters
    ----------
    module, cells
        A module with linear encoder and decoder, and all its n cells, in double precision on one device.
    max_epochs
        Largest number of epochs; one epoch is 20 iterations. Training ends earlier if it has converged.
    kl_weight
        Weight of the annealed terms, 0 or more.
    weight_decay
        Adds ``weight_decay / 2`` times the squared norm of all parameters to the loss per cell, as Adam does.
    tolerance
        Training has converged if one epoch lowers the loss by less than this fraction.
    progress
        Show a progress bar.
    fresh
        Whether the weights are random. They are then used for the standardised cells. ``False`` continues with a
        trained model.
    stop
        Function that is called after each epoch; training ends if it returns ``True``.

    Returns
    -------
    History by name, with one row for each epoch: ``elbo_train`` (negative ELBO, nats per cell) and its terms.
    """
    module.train()
    if weight_decay > 0:
        _match_noise(module, cells)
        rows = _descend(module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress, stop)
    else:
        with _standardised(module, cells, fresh) as (standard, log_scale):
            _match_noise(module, standard)
            rows = _descend(module, standard, max_epochs, kl_weight, 0.0, tolerance, progress, stop, log_scale)
            _match_noise(module, standard)  # an AE was fitted without sigma
    module.eval()
    history = pd.DataFrame(rows).rename_axis("epoch")
    return {name: history[[name]] for name in history}


def _descend(
    module, cells, max_epochs, kl_weight, weight_decay, tolerance, progress, stop, log_scale=0.0
) -> list[dict[str, float]]:
    """Run L-BFGS until it converges. Returns the terms after each epoch, for cells multiplied by exp(``log_scale``)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=ITERATIONS_AN_EPOCH, history_size=100, line_search_fn="strong_wolfe",
        tolerance_grad=1e-14, tolerance_change=1e-18,
    )  # fmt: skip
    terms: dict[str, Tensor] = {}
    g = cells.x.shape[1]
    only_error = isinstance(module.prior, Flat) and not weight_decay  # then sigma and the axes are free

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_px, kl_terms = module.bound(cells)
        kl = sum(kl_terms.annealed.values(), torch.zeros_like(log_px))
        if only_error:
            # an optimum with orthonormal axes of the white cells exists, and is found faster
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
    warn(f"L-BFGS did not converge in {max_epochs} epochs. Train with a larger max_epochs.")
    return rows


def _squared_error(module: ELBOModule, cells: Cells, log_px: Tensor) -> Tensor:
    """Mean squared error of a cell, from log N(x; mu, sigma^2)."""
    log_sigma = module.gaussian.log_sigma
    log_norm = cells.x.shape[1] * (log_sigma + math.log(2 * math.pi) / 2)
    return -2 * (2 * log_sigma).exp() * (log_px + log_norm).mean()


@torch.no_grad()
def use_data_units(module: ELBOModule, fresh: bool) -> None:
    """Convert the weights of a linear model to those of x itself, as `fit_full_batch` takes and leaves them.

    Parameters
    ----------
    module
        A linear Gaussian module, perhaps trained in minibatches, which have a unit and a center.
    fresh
        Whether the weights are random. They are then not converted.
    """
    normal = module.gaussian
    center, unit = normal.center.clone(), normal.unit.clone()
    normal.center.zero_()
    normal.unit.fill_(1)
    if fresh:
        return
    for head in _heads(module):
        weight = head.weight[:, : len(center)].div_(unit)
        head.bias.sub_(weight @ center)
    normal.loc.weight.mul_(unit)
    normal.loc.bias.mul_(unit).add_(center)
    if normal.log_sigma.requires_grad:
        normal.log_sigma.add_(unit.log())


def _heads(module: ELBOModule) -> list[nn.Linear]:
    """Linear layers of the encoder, (d, g + q)."""
    return [head for head in module.encoder.children() if isinstance(head, nn.Linear)]


@torch.no_grad()
def _match_noise(module: ELBOModule, cells: Cells) -> None:
    """Set a learned sigma to its best value for the other parameters. A small sigma would overflow the first step."""
    log_sigma = module.gaussian.log_sigma
    if log_sigma.requires_grad:
        log_px, _ = module.bound(cells)
        log_sigma.copy_((_squared_error(module, cells, log_px) / cells.x.shape[1]).log() / 2)


@contextmanager
def _standardised(module: ELBOModule, cells: Cells, fresh: bool) -> Iterator[tuple[Cells, float]]:
    """Fit cells (x - mean) / s, with an encoder of white = L^-1 (x - mean). Yields these cells and log s.

    Weights are converted at the start and at the end:
    N(x; W z + A c + b, sigma^2) = N((x - mean) / s; (W z + A c + b - mean) / s, sigma^2 / s^2) / s for each gene, and
    V x + v = V L white + v + V mean.
    """
    g = cells.x.shape[1]
    mean = cells.x.mean(0)
    centred = cells.x - mean
    s = centred.square().mean().sqrt()
    s = s if s > 0 else torch.ones_like(s)
    to_white, whiten, from_white = _whitening(centred, s)
    heads = _heads(module)
    decoder, log_sigma = module.gaussian.loc, module.gaussian.log_sigma
    with torch.no_grad():
        if not fresh:
            for head in heads:  # (d, g + q)
                head.bias.add_(head.weight[:, :g] @ mean)
                head.weight[:, :g] = to_white(head.weight[:, :g])
            decoder.weight.div_(s)
            decoder.bias.copy_((decoder.bias - mean) / s)
        log_sigma.sub_(s.log())
    try:
        yield cells._replace(x=centred / s, seen=whiten(centred)), s.log().item()
    finally:  # also after an interruption
        with torch.no_grad():
            for head in heads:
                head.weight[:, :g] = from_white(head.weight[:, :g])
                head.bias.sub_(head.weight[:, :g] @ mean)
            decoder.weight.mul_(s)
            decoder.bias.copy_(decoder.bias * s + mean)
            log_sigma.add_(s.log())


def _whitening(centred: Tensor, s: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Three functions: weights of centred cells to those of white cells, centred to white cells, and weights back."""
    g = centred.shape[1]
    floor = torch.finfo(s.dtype).eps * s.square()  # for a gene without variance
    if g > MAX_GENES_TO_WHITEN:
        scale = (centred.square().mean(0) + floor).sqrt()
        return scale.mul, lambda x: x / scale, lambda w: w / scale
    covariance = centred.T @ centred / len(centred)
    factor = torch.linalg.cholesky(
        covariance + torch.diag(WHITENING_RIDGE * covariance.diagonal() + floor)
    )  # L, (g, g)
    return (
        lambda w: w @ factor,
        lambda x: torch.linalg.solve_triangular(factor, x.T, upper=False).T,
        lambda w: torch.linalg.solve_triangular(factor, w, upper=False, left=False),
    )
