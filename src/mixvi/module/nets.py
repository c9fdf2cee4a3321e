"""Hidden layers of encoders, decoders and priors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scvi.nn import Embedding
from torch import Tensor, nn

from mixvi.ops.csr import dense, linear
from mixvi.ops.norm_relu_dropout import activate


class Hidden(NamedTuple):
    """Width, number and dropout of the hidden layers. ``n_layers=0`` gives a linear map.

    ``batches`` (b, e) places each batch, for all trunks of a module. ``None`` leaves the batches one-hot.
    """

    n_hidden: int = 128
    n_layers: int = 1
    dropout_rate: float = 0.1
    batches: Embedding | None = None


class Trunk(nn.Module):
    """Hidden layers on x and the conditions c. They map x (..., n, n_in) and c (n, q) to (..., n, n_out).

    The output ends with c itself. So a linear head has an intercept for each condition. Without hidden layers, the
    output is ``[x, c]``. With ``n_conditions=0``, c is not used. With ``discounts``, the first hidden layer subtracts
    condition effects from x (see `Layer`).

    With ``hidden.batches``, weights and output see the place of the batch instead of its one-hot columns. The attribute
    ``n_conditions`` is then the width of c with this place. Condition effects stay those of each batch.
    """

    layers: Sequence["Layer"]

    def __init__(self, n_in: int, n_conditions: int, hidden: Hidden, discounts: bool = False):
        super().__init__()
        self.n_in, self.hidden = n_in, hidden
        self.batches = hidden.batches if n_conditions else None
        narrower = 0 if self.batches is None else self.batches.num_embeddings - self.batches.embedding_dim
        self.n_conditions = q = n_conditions - narrower
        widths = [n_in, *[hidden.n_hidden] * hidden.n_layers]
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # torch does not say which modules a list holds
            Layer(width, n_conditions if first else q, hidden.n_hidden, hidden.dropout_rate, first)
            for width, first in zip(widths[:-1], [discounts, *[False] * hidden.n_layers], strict=False)
        )
        self.n_out = (hidden.n_hidden if self.layers else n_in) + q

    def bare(self) -> "Trunk":
        """A copy with the same weights, without conditions and without dropout."""
        copy = Trunk(self.n_in, 0, self.hidden._replace(dropout_rate=0.0))
        copy.load_state_dict(self.state_dict(), strict=False)
        return copy

    @torch.no_grad()
    def follow(self, bare: dict[str, Tensor]) -> None:
        """Load the state of a ``bare()`` copy. Weights on the conditions become 0; condition effects do not change."""
        self.load_state_dict(bare, strict=False)
        for layer in self.layers:
            if layer.condition is not None:
                layer.condition.zero_()

    @property
    def is_linear(self) -> bool:
        """Whether there is no hidden layer."""
        return not self.layers

    def placed(self, c: Tensor) -> Tensor:
        """C with the place of the batch instead of its one-hot columns, if batches have places."""
        if self.batches is None:
            return c
        b = self.batches.num_embeddings
        return torch.cat([c[..., :b] @ self.batches.weight, c[..., b:]], -1)

    @torch.no_grad()
    def place(self, effects: Tensor) -> Tensor:
        """Place the batches by their effects (q, ...), and give the effects of the places that are nearest to these.

        The places are principal axes of the effects (truncated singular value decomposition). If there are fewer
        batches than axes, the other axes stay as they are and have no effect.
        """
        if self.batches is None:
            return effects
        b, e = self.batches.weight.shape
        u, s, v = torch.linalg.svd(effects[:b], full_matrices=False)
        n_axes = min(len(s), e)
        self.batches.weight[:, :n_axes] = u[:, :n_axes] * b**0.5
        of_axes = effects.new_zeros(e, effects.shape[1])
        of_axes[:n_axes] = (s[:n_axes, None] / b**0.5) * v[:n_axes]
        return torch.cat([of_axes, effects[b:]])

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Output of the hidden layers, then c.

        Parameters
        ----------
        x
            (..., n, n_in) input, dense; CSR if it is (n, n_in).
        c
            (n, q) conditions. ``None`` is allowed if ``n_conditions=0``.

        Returns
        -------
        (..., n, n_out), dense.
        """
        c = torch.empty(0) if c is None else c
        placed = self.placed(c)
        for layer in self.layers:
            x = layer(x, placed if layer.effects is None else c)
        if not self.n_conditions:
            return dense(x)
        return torch.cat([dense(x), placed.expand(*x.shape[:-1], -1)], dim=-1)


class Layer(nn.Module):
    """Linear in [x, c], then batch norm, ReLU and dropout, with the constants of scvi-tools' hidden layers.

    With ``discounts``, it is linear in x - (c - c_mean) @ effects instead. The effects (q, n_in) of the conditions are
    estimated from the data and fixed. Such a layer has no weights for c, because they could separate similar cells of
    different conditions. The weight has one row for each input, so a sparse x reads contiguous memory.
    """

    effects: Tensor | None  # (q, n_in)
    c_mean: Tensor | None  # (q,)

    def __init__(self, n_in: int, n_conditions: int, n_out: int, dropout_rate: float, discounts: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))
        discounts = discounts and n_conditions > 0
        self.condition = nn.Parameter(torch.empty(n_out, n_conditions)) if n_conditions and not discounts else None
        self.register_buffer("effects", torch.zeros(n_conditions, n_in) if discounts else None)
        self.register_buffer("c_mean", torch.zeros(n_conditions) if discounts else None)
        bound = (n_in + n_conditions) ** -0.5  # torch's default for one matrix on [x, c]
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self.norm = nn.BatchNorm1d(n_out, momentum=0.01, eps=0.001)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map (..., n, n_in) to (..., n, n_out).

        Parameters
        ----------
        x
            (..., n, n_in) input, dense; CSR if it is (n, n_in).
        c
            (n, q) conditions; not used if there are none.

        Returns
        -------
        (..., n, n_out), dense.
        """
        h = linear(x, self.weight, self.bias)
        if self.condition is not None:
            h = h + c @ self.condition.t()
        if self.effects is not None and self.c_mean is not None:
            h = h - (c - self.c_mean) @ (self.effects @ self.weight)
        return activate(h.flatten(0, -2), self.norm, self.dropout).view_as(h)
