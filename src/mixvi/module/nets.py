"""Nets: the hidden layers that encoders, decoders and priors share."""

from typing import NamedTuple

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn


class Hidden(NamedTuple):
    """Width, depth and dropout of the hidden layers; ``n_layers=0`` leaves a linear map."""

    n_hidden: int = 128
    n_layers: int = 1
    dropout_rate: float = 0.1


class Trunk(nn.Module):
    """Hidden layers that see the conditions: x (..., n, n_in), c (n, q) -> (..., n, n_out).

    Without hidden layers the trunk is the plain concatenation ``[x, c]``, so that a linear head on it is linear in x.
    """

    def __init__(self, n_in: int, n_conditions: int, hidden: Hidden):
        super().__init__()
        self.layers = None
        self.n_out = n_in + n_conditions
        if hidden.n_layers > 0:
            self.layers = FCLayers(
                n_in, hidden.n_hidden, n_cont=n_conditions, n_layers=hidden.n_layers,
                n_hidden=hidden.n_hidden, dropout_rate=hidden.dropout_rate,
            )  # fmt: skip
            self.n_out = hidden.n_hidden

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Shared features of a cell."""
        if self.layers is not None:
            return self.layers(x, cont=c)
        return torch.cat([x, c.expand(*x.shape[:-1], -1)], dim=-1)
