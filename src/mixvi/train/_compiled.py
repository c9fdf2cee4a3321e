"""The objective of a minibatch through torch.compile."""

from collections.abc import Iterator

import torch
from torch.distributions import Normal, kl_divergence

from mixvi.module.cells import Cells
from mixvi.train._losses import Objective

MAX_FILLED = 16_000_000  # values of cells that are made dense at a time


def filled(block: Cells, batch_size: int) -> Iterator[Cells]:
    """Parts of a block, dense, each of many whole minibatches but for what is left over."""
    n_minibatches = max(MAX_FILLED // (batch_size * block.x.shape[1]), 1)
    yield from (part.filled() for part in block.split(n_minibatches * batch_size))


def compiled(objective: Objective, compile_kwargs: dict) -> Objective:
    """The same through torch.compile, traced whole; ``kl_weight`` is to be a tensor, or its value is compiled in.

    Raises
    ------
    ValueError
        If torch is asked to capture CUDA graphs, which are captured of whole steps (`mixvi.train._captured`).
    """
    captures = compile_kwargs.get("mode") in ("reduce-overhead", "max-autotune")
    if captures or (compile_kwargs.get("options") or {}).get("triton.cudagraphs"):
        raise ValueError(
            f"compile_kwargs got {compile_kwargs}, which captures CUDA graphs of parts of a step; mixvi captures whole "
            "steps: leave that out, or take mode='max-autotune-no-cudagraphs'."
        )
    kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0))  # torch looks for the formula once, untraceably
    torch.compiler.reset()  # torch keeps only so many versions of one piece of code, and each plan needs its own
    return torch.compile(objective, **{"fullgraph": True, "dynamic": False} | compile_kwargs)
