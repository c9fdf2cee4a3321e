"""Functions of p(x | z, c) at draws from the posterior of each cell."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor
from torch.distributions import Distribution

from mixvi.model.conditions import under
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

Rows = Sequence[int] | np.ndarray | None


def decoded(
    model: "LatentModel", of: Callable[[Any, Cells], Tensor], adata: AnnData | None, indices: Rows,
    transform_batch: str | Iterable[str] | None, n_samples: int, batch_size: int | None,
    draw: Callable[[Cells], Tensor] | None = None,
) -> np.ndarray:  # fmt: skip
    """A function of p(x | z, c) at draws from the posterior: (n, s, ...), the mean over the batches.

    Parameters
    ----------
    model
        Trained model.
    of
        Function of p(x | z, c) and `Cells`.
    adata, indices, batch_size
        As in `get_latent_representation`.
    transform_batch
        As in `get_normalized_expression`.
    n_samples
        Number s of draws for each cell.
    draw
        Gives one z (n, d) for each cell, from its values; ``None`` draws from the posterior.
    """
    puts = [lambda c: c] if transform_batch is None else [under(model, batch) for batch in batches_of(transform_batch)]
    module = model.module

    def values(cells: Cells) -> Tensor:
        if draw is None:
            z = module.encode(cells).rsample((n_samples,))  # (s, n, d)
        else:
            z = torch.stack([draw(cells) for _ in range(n_samples)])
        found = []
        for put in puts:
            others = cells._replace(c=put(cells.c))
            px: Distribution = module.decode(module.prior.move(z, cells.c, others.c), others)
            found.append(of(px, others))
        return torch.stack(found).mean(0).transpose(0, 1)

    return collect(model, values, adata, indices, batch_size, minified=draw is None)


def resampled(model: "LatentModel", n_proposals: int, n_at_once: int | None = None) -> Callable[[Cells], Tensor]:
    """Draws from the posterior, nearer to the true one by sampling importance resampling (Rubin 1987).

    Parameters
    ----------
    model
        Trained model.
    n_proposals
        Draws for each cell. One of them is kept, with a probability in proportion to its importance weight.
    n_at_once
        Draws whose weights are computed at a time; ``None`` is all.

    Returns
    -------
    A function that gives one z (n, d) for each cell.
    """
    module = model.module

    def draw(cells: Cells) -> Tensor:
        qz = module.encode(cells)
        z = qz.rsample((n_proposals,))
        log_w = torch.cat([
            module.likelihood.log_prob(part, cells) + module.prior.log_ratio(qz, part, cells)
            for part in z.split(n_at_once or n_proposals)
        ])  # fmt: skip
        kept = torch.distributions.Categorical(logits=log_w.T).sample()  # (n,)
        return z[kept, torch.arange(len(kept), device=kept.device)]

    return draw


def batches_of(transform_batch: str | Iterable[str]) -> list[str]:
    """One batch, or several, as a list."""
    several = isinstance(transform_batch, Iterable) and not isinstance(transform_batch, str)
    return [*transform_batch] if several else [transform_batch]  # type: ignore[list-item]
