"""Base class of all likelihoods: hidden layers on the latent and the conditions, with an intercept per condition."""

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mixvi.module.cells import Cells, Layout
from mixvi.module.encoders import Posterior
from mixvi.module.nets import Hidden, Trunk
from mixvi.ops.csr import dense

ALL = slice(None)
EDGE = 0.05  # keeps the links finite where a mean is 0 or 1


class Likelihood(nn.Module):
    """p(x | z, c): hidden layers on (z, c), and a linear head."""

    support: ClassVar[Literal["count", "unit", "real"]]

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__()
        self.trunk = Trunk(n_latent, layout.n_conditions, hidden)
        self.unit: Tensor | None
        self.register_buffer("unit", None)  # (), size of the values, where the user may choose their unit

    def prepare(self, x: Tensor) -> Tensor:
        """Values (n, g) that the encoders read instead of x (n, g)."""
        return x

    def scaled(self, cells: Cells) -> Tensor:
        """X (n, g) on the scale of the decoder's output. For counts, this is x / library size."""
        return dense(cells.x)

    def measure(self, scaled: Tensor) -> None:
        """Set the unit from `scaled` values (n, g) of training cells, so that a fit does not depend on the user's unit.

        A likelihood without a unit has nothing to set.
        """

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """The linear layer that gives the mean of x before the link function."""

    @property
    def loadings(self) -> Tensor:
        """(g, h) weights of the head on the mean of x before the link function, in the user's unit."""
        return self.head.weight

    @abstractmethod
    def link(self, mean: Tensor) -> Tensor:
        """Output (..., g) of the head that gives these means (..., g) of scaled x."""

    @torch.no_grad()
    def add_effects(self, mean: Tensor, effects: Tensor, c_mean: Tensor) -> None:
        """Give each condition its intercept: the decoder starts at mean + (c - c_mean) @ effects, to first order.

        Parameters
        ----------
        mean
            (g,) mean of scaled x.
        effects
            (q, g) effects of the conditions on scaled x.
        c_mean
            (q,) mean condition.
        """
        q = self.trunk.n_conditions
        if q and not self.trunk.is_linear:
            linked = self.link(mean + effects) - self.link(mean)
            weight = self.head.weight[:, self.trunk.n_out - q :]
            self.head.bias.add_(weight @ self.trunk.placed(c_mean))
            weight.copy_(self.trunk.place(linked).t())
            self.head.bias.sub_(weight @ self.trunk.placed(c_mean))

    @abstractmethod
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """p(x | z, c).

        Parameters
        ----------
        z
            (..., n, d) latent.
        cells
            n cells, for their conditions and library sizes.

        Returns
        -------
        (..., n, g) independent distributions, one for each gene.
        """

    def expected_seen(self, z: Tensor, cells: Cells, genes: Tensor | slice = ALL) -> Tensor:
        """Mean of the values that the encoders read, E[prepare(x)] under p(x | z, c).

        Parameters
        ----------
        z
            (n, d) latent.
        cells
            n cells, for their conditions and library sizes.
        genes
            (g,) mask of the m genes to compute; all by default.

        Returns
        -------
        (n, m) means.
        """
        return self(z, cells).mean[:, genes]

    @abstractmethod
    def log_prob(self, z: Tensor, cells: Cells, qz: Posterior | None = None) -> Tensor:
        """Log p(x | z, c), summed over genes.

        Parameters
        ----------
        z
            (..., n, d) latent.
        cells
            n cells.
        qz
            (n, d) posterior from which z was drawn. With it, the result is E_q[log p(x | z, c)] if that has a closed
            form. Otherwise it is the value at z, which is an unbiased estimate.

        Returns
        -------
        (..., n) nats.
        """


def positive(unit: Tensor) -> Tensor:
    """The unit (), or 1 if all values are alike."""
    return torch.where(unit > 0, unit, 1.0)
