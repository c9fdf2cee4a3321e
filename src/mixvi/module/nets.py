"""Nets: the hidden layers that encoders, decoders and priors share."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixvi.ops.csr import dense, linear
from mixvi.ops.norm_relu_dropout import activate


class Hidden(NamedTuple):
    """Width, depth and dropout of the hidden layers; ``n_layers=0`` leaves a linear map."""

    n_hidden: int = 128
    n_layers: int = 1
    dropout_rate: float = 0.1


class Trunk(nn.Module):
    """Hidden layers that see the conditions: x (..., n, n_in), c (n, q) -> (..., n, n_out); x may be CSR.

    What comes out ends in c itself, so that a linear head on it gives each condition an intercept of its own. Without
    hidden layers the trunk is the plain ``[x, c]``. With ``n_conditions=0`` it looks past c, whatever its width. With
    ``discounts`` the first hidden layer is one that discounts.
    """

    def __init__(self, n_in: int, n_conditions: int, hidden: Hidden, discounts: bool = False):
        super().__init__()
        self.n_in, self.hidden = n_in, hidden
        widths = [n_in, *[hidden.n_hidden] * hidden.n_layers]
        self.layers = nn.ModuleList(
            Layer(width, n_conditions, hidden.n_hidden, hidden.dropout_rate, discounts and i == 0)
            for i, width in enumerate(widths[:-1])
        )
        self.n_conditions = n_conditions
        self.n_out = (hidden.n_hidden if self.layers else n_in) + n_conditions

    def bare(self) -> "Trunk":
        """A copy that sees no conditions and drops nothing out."""
        copy = Trunk(self.n_in, 0, self.hidden._replace(dropout_rate=0.0))
        copy.load_state_dict(self.state_dict(), strict=False)
        return copy

    @torch.no_grad()
    def follow(self, bare: dict[str, Tensor]) -> None:
        """Go on from the state of a bare copy, with no weight on the conditions yet; what is discounted stays so."""
        self.load_state_dict(bare, strict=False)
        for layer in self.layers:
            if layer.condition is not None:
                layer.condition.zero_()

    @property
    def is_linear(self) -> bool:
        """Whether there is no hidden layer."""
        return not self.layers

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Shared features of a cell; a trunk that sees no conditions needs none."""
        for layer in self.layers:
            x = layer(x, c)
        if not self.n_conditions:
            return dense(x)
        return torch.cat([dense(x), c.expand(*x.shape[:-1], -1)], dim=-1)


class Layer(nn.Module):
    """Linear in [x, c], then batch norm, ReLU and dropout, with the constants of scvi-tools' hidden layers.

    The weight has a row for each input, so that what a sparse x picks are whole runs of memory. One that discounts is
    linear in x - (c - c_mean) @ effects instead, x less what conditions add to it, and has no weights for c: with these
    it could see like cells of two conditions as anything. Effects (q, n_in) are read off the data.
    """

    def __init__(self, n_in: int, n_conditions: int, n_out: int, dropout_rate: float, discounts: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))
        discounts = discounts and n_conditions > 0
        self.condition = nn.Parameter(torch.empty(n_out, n_conditions)) if n_conditions and not discounts else None
        self.register_buffer("effects", torch.zeros(n_conditions, n_in) if discounts else None)
        self.register_buffer("c_mean", torch.zeros(n_conditions) if discounts else None)
        bound = (n_in + n_conditions) ** -0.5  # torch's own for one matrix on [x, c]
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self.norm = nn.BatchNorm1d(n_out, momentum=0.01, eps=0.001)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """(..., n, n_in) -> (..., n, n_out)."""
        h = linear(x, self.weight, self.bias)
        if self.condition is not None:
            h = h + c @ self.condition.t()
        if self.effects is not None:
            h = h - (c - self.c_mean) @ (self.effects @ self.weight)
        return activate(h.flatten(0, -2), self.norm, self.dropout).view_as(h)
