"""The bound of a minibatch through torch.compile: on CUDA, a graph."""

from collections.abc import Callable, Iterator
from types import FunctionType

import torch
from scvi.module.base import LossOutput
from torch.distributions import Normal, kl_divergence

from mixvi.module._elbo import Cells, ELBOModule

MAX_FILLED = 16_000_000  # values of cells that are made dense at a time


def filled_minibatches(block: Cells, batch_size: int) -> Iterator[Cells]:
    """Minibatches of a block, dense."""
    n_minibatches = max(MAX_FILLED // (batch_size * block.x.shape[1]), 1)
    for part in block.split(n_minibatches * batch_size):
        yield from part.filled().split(batch_size)


def compiled_objective(module: ELBOModule, compile_kwargs: dict) -> Callable[..., LossOutput]:
    """`ELBOModule.objective` of this module through torch.compile; only the loss has a gradient."""
    kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0))  # torch looks for the formula once, untraceably

    def losses(cells: Cells, n_samples: int, **loss_kwargs) -> dict:
        found = module.losses(cells, n_samples, **loss_kwargs)
        return _detached(found) | {"loss": found["loss"]}

    # torch keeps only so many versions of one piece of code: each plan gets a piece of its own
    own = FunctionType(losses.__code__.replace(), losses.__globals__, closure=losses.__closure__)
    options = {"fullgraph": True, "dynamic": False}
    if not {"mode", "options", "backend"} & set(compile_kwargs):
        options["mode"] = "reduce-overhead"
    compiled = torch.compile(own, **(options | compile_kwargs))

    def objective(cells: Cells, n_samples: int, kl_weight: float, **loss_kwargs) -> LossOutput:
        weight = torch.full((), float(kl_weight), device=cells.x.device)  # a number would be compiled into the step
        losses = compiled(cells, n_samples, kl_weight=weight, **loss_kwargs)
        return LossOutput(**_copied(losses))  # a captured step writes over what it gave before

    return objective


def _detached(losses: dict) -> dict:
    return {key: _detached(value) if isinstance(value, dict) else value.detach() for key, value in losses.items()}


def _copied(losses: dict) -> dict:
    return {key: _copied(value) if isinstance(value, dict) else value.clone() for key, value in losses.items()}
