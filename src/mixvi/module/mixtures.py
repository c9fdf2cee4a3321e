"""Priors that are mixtures: their components are the clusters."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from mixvi.module.cells import Cells, Layout
from mixvi.module.encoders import NormalEncoder
from mixvi.module.nets import Hidden, Trunk
from mixvi.module.priors import Prior, Terms, standard

MAX_COMPONENTS = 64  # room for components, unless more are wanted
OFF = -1e9  # log weight of a component that is switched off: exp gives 0, and no NaN on the way


class MixturePrior(Prior):
    """p(z, y) = pi_y p(z | y): K components, of which some may be switched off.

    The posterior of y that makes the bound tightest given q(z | x) is the responsibility
    r_k = softmax_k(log pi_k - KL_k), KL_k = KL(q(z | x) || p(z | y = k)). A labelled cell has its own one-hot r, and
    adds -log r_y: what it costs to guess the label. Components start as N(0, I) with equal weights, where all terms
    but KL(q || N(0, I)) vanish: an untouched mixture is the prior of a VAE.
    """

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
        """p(z | y) of all components, broadcastable to (n, K, d), and the terms of what else it depends on."""

    @abstractmethod
    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        """p(z | y) of all components, broadcastable to (..., n, K, d), at ``shape`` draws of what else it depends on.

        And the log ratio of prior to posterior of that, broadcastable to (..., n).
        """

    @abstractmethod
    def component_parameters(self) -> list[nn.Parameter]:
        """The parameters that tell components apart, to be held still while the latent space takes shape."""

    @abstractmethod
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        """Put the first components where the data are: loc, scale (k, d), weight (k,); switch off the others."""

    def _switch_on(self, k: int) -> int:
        self.active[:] = torch.arange(self.n_room, device=self.active.device) < k
        self.placed.fill_(True)
        return k

    def log_weights(self) -> Tensor:
        """Log pi (K,)."""
        return self.logits.masked_fill(~self.active, OFF).log_softmax(-1)

    def kl(self, qz: Distribution, z: Tensor, cells: Cells) -> Terms:
        """kl_z = sum_k r_k KL_k; kl_y = KL(Cat(r) || Cat(pi)); label = -log r_y of the labelled cells.

        Where training guides the cells, guide = -sum_k g_k log r_k: it is no part of the bound.
        """
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
        if cells.guide.shape[-1]:
            fixed["guide"] = -(cells.guide * log_r).sum(-1)
        return Terms({"kl_z": kl_z, "kl_y": kl_y, **others}, fixed)

    def log_ratio(self, qz: Distribution, z: Tensor, cells: Cells) -> Tensor:
        """Log p(z | c) - log q(z | x, c), y summed out; log p(z, y | c) - log q(z | x, c) where y is known."""
        pz, others = self.given_draw(cells, z.shape[:-2])
        log_pzy = self.log_weights() + pz.log_prob(z.unsqueeze(-2)).sum(-1)  # (..., n, K)
        y = self._labels(cells)
        log_pz = log_pzy.masked_fill(y.sum(-1, keepdim=True).bool() & ~y.bool(), -torch.inf).logsumexp(-1)
        return log_pz + others - qz.log_prob(z).sum(-1)

    def responsibilities(self, qz: Distribution, cells: Cells) -> Tensor:
        """q(y | x) (n, K), without a look at labels."""
        return self.log_responsibilities(qz, cells).exp()

    def log_responsibilities(self, qz: Distribution, cells: Cells) -> Tensor:
        """Log q(y | x) (n, K), without a look at labels."""
        pz, _ = self.given(cells, mean=True)
        return (self.log_weights() - _component_kl(qz, pz)).log_softmax(-1)

    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """Z itself: components know of no condition."""
        return z

    def log_density(self) -> Tensor:
        """Log Dirichlet(pi | alpha) up to its constant, a scalar: the prior of the weights."""
        return (self.concentration - 1) * (self.log_weights() * self.active).sum()

    def _labels(self, cells: Cells) -> Tensor:
        """Labels as components: (n, l) -> (n, K)."""
        return nn.functional.pad(cells.y, (0, self.n_room - cells.y.shape[-1]))


class GaussianMixture(MixturePrior):
    """p(z | y) = N(mu_y, diag s_y^2)."""

    generative = ("p(pi)", "p(y | pi)", "p(z | y)")
    inference = ("q(y | x, c)",)

    def __init__(self, n_components: int | None, n_latent: int, concentration: float = 1.0):
        super().__init__(n_components, concentration)
        self.loc = nn.Parameter(torch.zeros(self.n_room, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(self.n_room, n_latent))

    def component_parameters(self) -> list[nn.Parameter]:
        """Weights, means and scales."""
        return [self.logits, self.loc, self.log_scale]

    def given(self, cells: Cells, mean: bool) -> tuple[Normal, dict[str, Tensor]]:
        """See the class; there is nothing else."""
        return Normal(self.loc, self.log_scale.exp(), validate_args=False), {}

    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        """See the class; there is nothing else."""
        return self.given(cells, mean=False)[0], self.loc.new_zeros(())

    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """All of them."""
        return self.log_weights(), Normal(self.loc[None], self.log_scale[None].exp(), validate_args=False)

    @torch.no_grad()
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        """See `MixturePrior.place`."""
        k = self._switch_on(len(weight))
        self.loc[:k], self.log_scale[:k], self.logits[:k] = loc, scale.log(), weight.log()

    def sample(self, c: Tensor, component: Tensor | int | None = None) -> Tensor:
        """Y ~ Cat(pi), or one of the chosen components, then z ~ N(mu_y, diag s_y^2)."""
        y = _draw_components(self.log_weights(), component, c.shape[0])
        return Normal(self.loc[y], self.log_scale[y].exp(), validate_args=False).sample()


class HierarchicalMixture(MixturePrior):
    """p(z | w, y) = N(mu_y(w), diag s_y(w)^2), w ~ N(0, I): components of free shape (Dilokthanakul 2016, eq. 3).

    q(w | x, c) is a diagonal normal; the terms of z and y stand under one sample of it, and kl_w is its own.
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

    def component_parameters(self) -> list[nn.Parameter]:
        """Weights and the heads that give means and scales."""
        return [self.logits, *self.loc.parameters(), *self.log_scale.parameters()]

    def at(self, w: Tensor) -> Normal:
        """p(z | w, y) of all components for w (..., n, d): (..., n, K, d)."""
        h = self.trunk(w, w.new_zeros(w.shape[-2], 0))
        loc, log_scale = (head(h).unflatten(-1, self.shape) for head in (self.loc, self.log_scale))
        return Normal(loc, log_scale.exp(), validate_args=False)

    def given(self, cells: Cells, mean: bool) -> tuple[Normal, dict[str, Tensor]]:
        """See the class; kl_w = KL(q(w | x, c) || N(0, I))."""
        qw = self.encoder(cells.seen, cells.c)
        return self.at(qw.loc if mean else qw.rsample()), {"kl_w": kl_divergence(qw, standard(qw)).sum(-1)}

    def given_draw(self, cells: Cells, shape: torch.Size) -> tuple[Normal, Tensor]:
        """See the class; the ratio is that of w."""
        qw = self.encoder(cells.seen, cells.c)
        w = qw.rsample(shape)
        return self.at(w), (standard(qw).log_prob(w) - qw.log_prob(w)).sum(-1)

    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """Not possible: w bends them."""
        raise ValueError("With hierarchical=True p(z) is no finite mixture of normals: there is no exact evidence.")

    @torch.no_grad()
    def place(self, loc: Tensor, scale: Tensor, weight: Tensor) -> None:
        """See `MixturePrior.place`: the heads' biases take the place, w may bend the components later."""
        k = self._switch_on(len(weight))
        self.loc.bias.unflatten(0, self.shape)[:k] = loc
        self.log_scale.bias.unflatten(0, self.shape)[:k] = scale.log()
        self.logits[:k] = weight.log()

    def sample(self, c: Tensor, component: Tensor | int | None = None) -> Tensor:
        """W ~ N(0, I), y ~ Cat(pi) or one of the chosen components, then z ~ N(mu_y(w), diag s_y(w)^2)."""
        n = c.shape[0]
        y = _draw_components(self.log_weights(), component, n)
        w = torch.randn(n, self.shape[1], device=c.device, dtype=c.dtype)
        return self.at(w).sample()[torch.arange(n), y]


def _component_kl(qz: Distribution, pz: Normal) -> Tensor:
    """KL(q(z | x) || p(z | y = k)), (n, K), of q (n, d) against components (n or 1, K, d)."""
    q = Normal(qz.loc.unsqueeze(1), qz.scale.unsqueeze(1), validate_args=False)
    return kl_divergence(q, pz).sum(-1)


def _draw_components(log_pi: Tensor, component: Tensor | int | None, n: int) -> Tensor:
    """N component indices, drawn from pi; or from the chosen ones by their weights in pi."""
    if component is not None:
        chosen = torch.atleast_1d(torch.as_tensor(component, device=log_pi.device))
        log_pi = torch.full_like(log_pi, -torch.inf).index_copy(0, chosen, log_pi[chosen])
    return torch.distributions.Categorical(logits=log_pi).sample((n,))
