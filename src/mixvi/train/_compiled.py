"""The objective of a minibatch, compiled by torch.compile."""

from collections.abc import Iterator

import torch
from torch.distributions import Normal, kl_divergence

from mixvi.train._guide import Guided
from mixvi.train._losses import Objective

MAX_FILLED = 16_000_000  # number of values that are dense at one time


def filled(block: Guided, batch_size: int) -> Iterator[Guided]:
    """Dense parts of a block. Each holds as many whole minibatches as fit; the last one holds the rest."""
    n_minibatches = max(MAX_FILLED // (batch_size * block.cells.x.shape[1]), 1)
    yield from (part.filled() for part in block.split(n_minibatches * batch_size))


def compiled(objective: Objective, compile_kwargs: dict) -> Objective:
    """Compile an objective as one graph.

    Its ``kl_weight`` must be a tensor. Otherwise torch compiles the value of a number as a constant.

    Parameters
    ----------
    objective
        Objective of a minibatch.
    compile_kwargs
        Arguments of :func:`torch.compile`.

    Returns
    -------
    The compiled objective.

    Raises
    ------
    ValueError
        If ``compile_kwargs`` asks for CUDA graphs. mixvi captures whole steps itself.
    """
    captures = compile_kwargs.get("mode") in ("reduce-overhead", "max-autotune")
    if captures or (compile_kwargs.get("options") or {}).get("triton.cudagraphs"):
        raise ValueError(
            f"compile_kwargs got {compile_kwargs}, which captures CUDA graphs of parts of a step. mixvi captures whole "
            "steps. Leave this setting out, or use mode='max-autotune-no-cudagraphs'."
        )
    kl_divergence(Normal(0.0, 1.0), Normal(0.0, 1.0))  # torch cannot trace its first search for the formula
    torch.compiler.reset()  # torch keeps few versions of a function, and each plan needs one
    return torch.compile(objective, **{"fullgraph": True, "dynamic": False} | compile_kwargs)
