"""Priors p(z | c): the distribution of the latent before a cell is observed, and the KL term of the bound.

Letters: n cells, d latent, K components, q width of the conditions.
"""

import warnings
from abc import abstractmethod
from typing import ClassVar, NamedTuple, override

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from mixvi.module.cells import Cells
from mixvi.module.encoders import Posterior

_IMPROPER = "A flat prior is improper: nothing can be drawn from it, and there is no evidence under it."


class Terms(NamedTuple):
    """Terms of the bound by name, each (n,) in nats."""

    annealed: dict[str, Tensor]  # multiplied by the weight of the KL, which grows during warm-up
    fixed: dict[str, Tensor]  # always with weight 1
    log_r: Tensor | None = None  # (n, K) log responsibilities of a mixture, computed without the labels


class Factors(NamedTuple):
    """The factors of a model, such as ``"p(x | z, c)"``."""

    generative: tuple[str, ...]
    inference: tuple[str, ...]


class Prior(nn.Module):
    """p(z | c). A mixture has components y as well: p(z, y | c).

    ``generative`` and ``inference`` name its factors for `ELBOModule.factors`.
    """

    generative: ClassVar[tuple[str, ...]]
    inference: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def kl(self, qz: Posterior, z: Tensor, cells: Cells) -> Terms:
        """Terms of KL( q(z, ... | x, c) || p(z, ... | c) ).

        Parameters
        ----------
        qz
            (n, d) posterior.
        z
            (n, d) or (s, n, d) draws from it.
        cells
            n cells.

        Returns
        -------
        Terms by name, each (n,) in nats.
        """

    @abstractmethod
    def log_ratio(self, qz: Posterior, z: Tensor, cells: Cells) -> Tensor:
        """Log p(z, ... | c) - log q(z, ... | x, c) of all latent variables, for importance weights.

        Where the label y is known, p(z, y | c) replaces p(z | c).

        Parameters
        ----------
        qz
            (n, d) posterior.
        z
            (..., n, d) draws from it.
        cells
            n cells.

        Returns
        -------
        (..., n) log ratios in nats.

        Raises
        ------
        ValueError
            If the prior is flat.
        """

    @abstractmethod
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """p(z | c) as a mixture of normals: log weights (K,), and normals (n or 1, K, d). Other priors have K = 1.

        Raises
        ------
        ValueError
            If p(z | c) is no finite mixture of normals.
        """

    @abstractmethod
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        """Draw one z from p(z | c) for each row of c.

        Parameters
        ----------
        c
            (n, q) conditions.
        component
            Component, or several (k,), of a mixture to draw from. ``None`` draws from the whole prior.

        Returns
        -------
        (n, d) latent.

        Raises
        ------
        ValueError
            If the prior is flat, or if it has no components and ``component`` is given.
        """

    @abstractmethod
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """Move z from its condition to another one. Its position relative to p(z | c) stays the same.

        Parameters
        ----------
        z
            (n, d) latent.
        c
            (n, q) conditions of the cells.
        other
            (n, q) new conditions.

        Returns
        -------
        (n, d) latent under the new conditions. It is z itself if the prior does not depend on c.
        """

    @abstractmethod
    def log_density(self) -> Tensor | float:
        """Log density (scalar, nats) of the prior's own parameters; 0 if they have no prior."""


class Flat(Prior):
    """p(z) constant. The bound has no KL term, and nothing can be drawn."""

    generative = ("p(z)",)

    @override
    def kl(self, qz: Posterior, z: Tensor, cells: Cells) -> Terms:
        return Terms({}, {})

    @override
    def log_ratio(self, qz: Posterior, z: Tensor, cells: Cells) -> Tensor:
        raise ValueError(_IMPROPER)

    @override
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        raise ValueError(_IMPROPER)

    @override
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        raise ValueError(_IMPROPER)

    @override
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        return z

    @override
    def log_density(self) -> float:
        return 0.0


class StandardNormal(Prior):
    """p(z) = N(0, I) under all conditions, so the latent should not contain c.

    For q(z | x, c) = N(m, diag s^2), kl_z = KL(q(z | x, c) || N(0, I)) = sum_j (m_j^2 + s_j^2 - 1) / 2 - log s_j.
    """

    generative = ("p(z)",)

    def __init__(self, n_latent: int):
        super().__init__()
        self.n_latent = n_latent

    @override
    def kl(self, qz: Posterior, z: Tensor, cells: Cells) -> Terms:
        each = (qz.loc.square() + qz.scale.square() - 1) / 2 - qz.scale.log()
        return Terms({"kl_z": each.sum(-1)}, {})

    @override
    def log_ratio(self, qz: Posterior, z: Tensor, cells: Cells) -> Tensor:
        return (standard(qz).log_prob(z) - qz.log_prob(z)).sum(-1)

    @override
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        zero = cells.library.new_zeros(1, 1, self.n_latent)
        return zero[0, :, 0], Normal(zero, torch.ones_like(zero), validate_args=False)

    @override
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        _refuse(component, "one standard normal")
        return torch.randn(c.shape[0], self.n_latent, device=c.device, dtype=c.dtype)

    @override
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        return z

    @override
    def log_density(self) -> float:
        return 0.0


class ConditionalNormal(Prior):
    """p(z | c) = N(m(c), diag s(c)^2), with m and log s linear in c. Each condition has its own mean and scale.

    kl_z = KL(q(z | x, c) || p(z | c)). To move z to another condition keeps (z - m(c)) / s(c).
    """

    generative = ("p(z | c)",)

    def __init__(self, n_conditions: int, n_latent: int):
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # without conditions
            self.loc, self.log_scale = nn.Linear(n_conditions, n_latent), nn.Linear(n_conditions, n_latent)
        for head in (self.loc, self.log_scale):  # start as N(0, I)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def given(self, c: Tensor) -> Normal:
        """p(z | c) for c (n, q): loc and scale (n, d)."""
        return Normal(self.loc(c), self.log_scale(c).exp(), validate_args=False)

    @override
    def kl(self, qz: Posterior, z: Tensor, cells: Cells) -> Terms:
        return Terms({"kl_z": kl_divergence(qz, self.given(cells.c)).sum(-1)}, {})

    @override
    def log_ratio(self, qz: Posterior, z: Tensor, cells: Cells) -> Tensor:
        return (self.given(cells.c).log_prob(z) - qz.log_prob(z)).sum(-1)

    @override
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        pz = self.given(cells.c.unsqueeze(1))  # (n, 1, d)
        return pz.loc.new_zeros(1), pz

    @override
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        _refuse(component, "one normal for each condition")
        return self.given(c).sample()

    @override
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        here, there = self.given(c), self.given(other)
        return there.loc + there.scale * (z - here.loc) / here.scale

    @override
    def log_density(self) -> float:
        return 0.0


def standard(q: Posterior) -> Normal:
    """N(0, I) with the shape of q."""
    return Normal(torch.zeros_like(q.loc), torch.ones_like(q.scale), validate_args=False)


def _refuse(component: Tensor | list[int] | int | None, what: str) -> None:
    if component is not None:
        raise ValueError(f"component={component}, but the prior is {what}; use mixvi.GMVAE for components.")
