"""Mixture priors p(z, y). Clusters are components, or sums of several."""

from abc import abstractmethod
from typing import override

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from mixvi.module.cells import Cells, Layout
from mixvi.module.encoders import LOG_SCALE_CEILING, NormalEncoder, Posterior
from mixvi.module.nets import Hidden, Trunk
from mixvi.module.priors import Prior, Terms, standard

MAX_COMPONENTS = 64  # number of components in memory, unless the user sets another
OFF = -1e9  # log weight of an inactive component: its weight is exactly 0, and gradients are finite


class MixturePrior(Prior):
    """p(z, y) = pi_y p(z | y): K components, some of which may be inactive.

    For a given q(z | x), the posterior of y with the largest bound is the responsibility
    r_k = softmax_k(log pi_k - KL_k), KL_k = KL(q(z | x) || p(z | y = k)). For a labelled cell, r is one-hot. All
    components start as N(0, I) with equal weights. Then kl_y = 0 and the prior is that of a VAE.

    Terms: kl_z = sum_k r_k KL_k, kl_y = KL(Cat(r) || Cat(pi)), and label = -log r_y of a labelled cell, with the r of
    the formula.
    """

    active: Tensor  # (K,) bool
    placed: Tensor  # scalar, bool: whether the components were initialised
    temperature: Tensor  # scalar

    def __init__(self, n_components: int | None, concentration: float):
        super().__init__()
        self.n_room = n_components or MAX_COMPONENTS
        self.concentration = concentration
        self.logits = nn.Parameter(torch.zeros(self.n_room))
        self.register_buffer("active", torch.ones(self.n_room, dtype=torch.bool))
        self.register_buffer("placed", torch.tensor(False))
        self.register_buffer("temperature", torch.tensor(1.0))

    @abstractmethod
    def given(self, cells: Cells, mean: bool) -> tuple[Normal, dict[str, Tensor]]:
        """p(z | y) of all components, and the KL terms of further latent variables.

        Parameters
        ----------
        cells
            n cells.
        mean
            Set a further latent variable to its posterior mean; ``False`` draws it.

        Returns
        -------
        Normals that broadcast to (n, K, d), and terms (n,) in nats by name.
        """

    @abstractmethod
    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        """p(z | y) of all components at draws of further latent variables.

        Parameters
        ----------
        cells
            n cells.
        shape
            Shape (...) of the draws for each cell.

        Returns
        -------
        Normals that broadcast to (..., n, K, d), and the log ratio of prior to posterior of the further latent
        variables, which broadcasts to (..., n).
        """

    @abstractmethod
    def component_parameters(self) -> list[nn.Parameter]:
        """Parameters that differ between components. They are frozen during pretraining."""

    @abstractmethod
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        """Set the first k components, and switch off the others.

        Parameters
        ----------
        loc
            (k, d) means.
        scale
            (k, d) standard deviations, above 0.
        weight
            (k,) weights, above 0.
        """

    def _switch_on(self, k: int) -> int:
        self.active[:] = torch.arange(self.n_room, device=self.active.device) < k
        self.placed.fill_(True)
        return k

    def log_weights(self) -> Tensor:
        """Log pi (K,)."""
        return self.logits.masked_fill(~self.active, OFF).log_softmax(-1)

    @override
    def kl(self, qz: Posterior, z: Tensor, cells: Cells) -> Terms:
        log_pi = self.log_weights()
        pz, others = self.given(cells, mean=False)
        kl_k = _component_kl(qz, pz)  # (n, K)
        log_r = (log_pi - kl_k).log_softmax(-1)  # (n, K)
        y = self._labels(cells)
        labelled = y.sum(-1)  # (n,) 1 or 0
        r = torch.where(labelled.bool().unsqueeze(-1), y, log_r.exp())
        entropy = -(log_r.exp() * log_r).sum(-1) * (1 - labelled)
        kl_z = (r * kl_k).sum(-1)
        kl_y = -(r * log_pi).sum(-1) - entropy
        fixed = {"label": -(y * log_r).sum(-1)} if cells.y.shape[-1] else {}
        return Terms({"kl_z": kl_z, "kl_y": kl_y, **others}, fixed, log_r)

    @override
    def log_ratio(self, qz: Posterior, z: Tensor, cells: Cells) -> Tensor:
        pz, others = self.given_draw(cells, z.shape[:-2])
        log_pzy = self.log_weights() + pz.log_prob(z.unsqueeze(-2)).sum(-1)  # (..., n, K)
        y = self._labels(cells)
        log_pz = log_pzy.masked_fill(y.sum(-1, keepdim=True).bool() & ~y.bool(), -torch.inf).logsumexp(-1)
        return log_pz + others - qz.log_prob(z).sum(-1)

    def responsibilities(self, qz: Posterior, cells: Cells) -> Tensor:
        """q(y | x), computed without the labels.

        Parameters
        ----------
        qz
            (n, d) posterior.
        cells
            n cells.

        Returns
        -------
        (n, K) probabilities; rows sum to 1.
        """
        return self.log_responsibilities(qz, cells).exp()

    def log_responsibilities(self, qz: Posterior, cells: Cells) -> Tensor:
        """Log q(y | x), computed without the labels.

        Parameters
        ----------
        qz
            (n, d) posterior.
        cells
            n cells.

        Returns
        -------
        (n, K) log probabilities in nats.
        """
        pz, _ = self.given(cells, mean=True)
        return (self.log_weights() - _component_kl(qz, pz)).log_softmax(-1)

    @override
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        return z

    @override
    def log_density(self) -> Tensor:
        # log Dirichlet(pi | alpha), up to a constant
        return (self.concentration - 1) * (self.log_weights() * self.active).sum()

    def _labels(self, cells: Cells) -> Tensor:
        """One-hot labels as components: (n, l) -> (n, K)."""
        return nn.functional.pad(cells.y, (0, self.n_room - cells.y.shape[-1]))


class GaussianMixture(MixturePrior):
    """p(z | y) = N(mu_y, diag s_y^2), y ~ Cat(pi)."""

    generative = ("p(pi)", "p(y | pi)", "p(z | y)")
    inference = ("q(y | x, c)",)

    def __init__(self, n_components: int | None, n_latent: int, concentration: float = 1.0):
        super().__init__(n_components, concentration)
        self.loc = nn.Parameter(torch.zeros(self.n_room, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(self.n_room, n_latent))

    @override
    def component_parameters(self) -> list[nn.Parameter]:
        return [self.logits, self.loc, self.log_scale]

    @override
    def given(self, cells: Cells, mean: bool) -> tuple[Normal, dict[str, Tensor]]:
        return Normal(self.loc, self.log_scale.exp(), validate_args=False), {}

    @override
    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        return self.given(cells, mean=False)[0], self.loc.new_zeros(())

    @override
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        return self.log_weights(), Normal(self.loc[None], self.log_scale[None].exp(), validate_args=False)

    @torch.no_grad()
    @override
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        k = self._switch_on(len(weight))
        self.loc[:k], self.log_scale[:k], self.logits[:k] = loc, scale.log(), weight.log()

    @override
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        y = _draw_components(self.log_weights(), component, c.shape[0])
        return Normal(self.loc[y], self.log_scale[y].exp(), validate_args=False).sample()


class HierarchicalMixture(MixturePrior):
    """p(z | w, y) = N(mu_y(w), diag s_y(w)^2), w ~ N(0, I): components of any shape (Dilokthanakul 2016, eq. 3).

    q(w | x, c) is a diagonal normal. The terms of z and y use one draw of w. A further term is
    kl_w = KL(q(w | x, c) || N(0, I)). p(z) is no finite mixture of normals.
    """

    generative = ("p(pi)", "p(y | pi)", "p(w)", "p(z | w, y)")
    inference = ("q(y | x, c)", "q(w | x, c)")

    def __init__(
        self, layout: Layout, n_components: int | None, n_latent: int, hidden: Hidden, concentration: float = 1.0
    ):
        super().__init__(n_components, concentration)
        self.shape = (self.n_room, n_latent)
        self.encoder = NormalEncoder(layout.n_genes, layout.n_conditions, n_latent, hidden)
        self.trunk = Trunk(n_latent, 0, hidden)
        self.loc = nn.Linear(self.trunk.n_out, self.n_room * n_latent)
        self.log_scale = nn.Linear(self.trunk.n_out, self.n_room * n_latent)
        for head in (self.loc, self.log_scale):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @override
    def component_parameters(self) -> list[nn.Parameter]:
        return [self.logits, *self.loc.parameters(), *self.log_scale.parameters()]

    def at(self, w: Tensor) -> Normal:
        """p(z | w, y) of all components for w (..., n, d): (..., n, K, d)."""
        h = self.trunk(w, w.new_zeros(w.shape[-2], 0))
        loc, log_scale = (head(h).unflatten(-1, self.shape) for head in (self.loc, self.log_scale))
        log_scale = log_scale.clamp(-LOG_SCALE_CEILING, LOG_SCALE_CEILING)  # cells of large values have large w
        return Normal(loc, log_scale.exp(), validate_args=False)

    @override
    def given(self, cells: Cells, mean: bool) -> tuple[Normal, dict[str, Tensor]]:
        qw = self.encoder(cells.seen, cells.c)
        return self.at(qw.loc if mean else qw.rsample()), {"kl_w": kl_divergence(qw, standard(qw)).sum(-1)}

    @override
    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        qw = self.encoder(cells.seen, cells.c)
        w = qw.rsample(shape)
        return self.at(w), (standard(qw).log_prob(w) - qw.log_prob(w)).sum(-1)

    @override
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        raise ValueError("With hierarchical=True, p(z) is no finite mixture of normals. So there is no exact evidence.")

    @torch.no_grad()
    @override
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        k = self._switch_on(len(weight))  # only the biases are set; the weights on w stay
        self.loc.bias.unflatten(0, self.shape)[:k] = loc
        self.log_scale.bias.unflatten(0, self.shape)[:k] = scale.log()
        self.logits[:k] = weight.log()

    @override
    def sample(self, c: Tensor, component: Tensor | list[int] | int | None = None) -> Tensor:
        n = c.shape[0]
        y = _draw_components(self.log_weights(), component, n)
        w = torch.randn(n, self.shape[1], device=c.device, dtype=c.dtype)
        return self.at(w).sample()[torch.arange(n), y]


def _component_kl(qz: Posterior, pz: Normal) -> Tensor:
    """KL(q(z | x) || p(z | y = k)) (n, K) of q (n, d) and components (n or 1, K, d): torch's, in half the time."""
    variance, shift = qz.scale.unsqueeze(1).square(), qz.loc.unsqueeze(1) - pz.loc
    quadratic = ((variance + shift.square()) / pz.scale.square() - 1).sum(-1) / 2
    return quadratic + pz.scale.log().sum(-1) - qz.scale.log().sum(-1, keepdim=True)


def _draw_components(log_pi: Tensor, component: Tensor | list[int] | int | None, n: int) -> Tensor:
    """Draw n component indices (n,) from pi. If components are chosen, draw among them by their weights in pi."""
    if component is not None:
        chosen = torch.atleast_1d(torch.as_tensor(component, device=log_pi.device))
        log_pi = torch.full_like(log_pi, -torch.inf).index_copy(0, chosen, log_pi[chosen])
    return torch.distributions.Categorical(logits=log_pi).sample((n,))
