"""The evidence bound that every model maximises.

    ELBO(x) = E_q(z | x, c)[ log p(x | z, c) ] - KL( q(z, ... | x, c) || p(z, ... | c) )

and, where more than one z is drawn, its importance-weighted sister (Burda 2016), ELBO <= L_1 <= L_s <= log p(x | c):

    L_s(x) = E[ log 1/s sum_i w_i ],   w_i = p(x | z_i, c) p(z_i, ... | c) / q(z_i, ... | x, c),   z_i ~ q

A module is three parts, an encoder q(z | x, c), a prior p(z, ... | c) and a likelihood p(x | z, c); this file reads a
minibatch, passes it through the parts and adds up the terms. Letters: n cells, g genes, d latent, k components,
q condition width, l labelled classes.
"""

import math
from functools import reduce
from typing import NamedTuple

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn
from torch.distributions import Distribution, LowRankMultivariateNormal
from torch.nn.functional import one_hot

from mixvi.module.cells import Cells, Layout
from mixvi.module.likelihoods import Likelihood, Normal
from mixvi.module.priors import Prior, Terms
from mixvi.ops.csr import dense, totals


class Factors(NamedTuple):
    """A model as its factors, such as ``"p(x | z, c)"``."""

    generative: tuple[str, ...]
    inference: tuple[str, ...]


class ELBOModule(BaseModuleClass):
    """Abstract: the parts come from the final classes, the bound from here."""

    def __init__(self, layout: Layout, encoder: nn.Module, prior: Prior, likelihood: Likelihood):
        super().__init__()
        self.layout = layout
        self.encoder = encoder
        self.prior = prior
        self.likelihood = likelihood
        plain = torch.tensor([[0.0], [1.0]]).repeat(1, layout.n_continuous)  # mean and scale, known in training
        self.register_buffer("continuous", plain if layout.n_continuous else None)

    def read(self, tensors: dict[str, Tensor]) -> Cells:
        """Cells as the loader gives them, under scvi-tools' names, as `Cells`."""
        x = tensors[REGISTRY_KEYS.X_KEY]
        library = tensors.get(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        nothing = torch.zeros(len(x), 0, dtype=x.dtype, device=x.device)
        conditions = [nothing]  # (n, 0): q = 0 needs no case of its own
        if self.layout.batch_levels:
            conditions.append(_one_hot(tensors[REGISTRY_KEYS.BATCH_KEY], self.layout.batch_levels, nothing))
        for i, levels in enumerate(self.layout.covariate_levels):
            conditions.append(_one_hot(tensors[REGISTRY_KEYS.CAT_COVS_KEY][:, [i]], levels, nothing))
        if self.layout.n_continuous:
            mean, scale = self.continuous.to(nothing)
            conditions.append((tensors[REGISTRY_KEYS.CONT_COVS_KEY].to(nothing) - mean) / scale)
        y = nothing
        if self.layout.n_labels:  # the unlabelled category comes last and has no column
            y = _one_hot(tensors[REGISTRY_KEYS.LABELS_KEY], self.layout.n_labels + 1, nothing)[:, :-1]
        return Cells(
            x=x,
            seen=self.likelihood.prepare(x),
            library=totals(x) if library is None else library.to(x.dtype),
            c=torch.cat(conditions, dim=-1),
            y=y,
            guide=tensors.get("guide", nothing),
        )

    def encode(self, cells: Cells) -> Distribution:
        """q(z | x, c): loc and scale (n, d)."""
        return self.encoder(cells.seen, cells.c)

    def decode(self, z: Tensor, cells: Cells) -> Distribution:
        """p(x | z, c) for z (..., n, d): (..., n, g)."""
        return self.likelihood(z, cells)

    def bound(self, cells: Cells) -> tuple[Tensor, Terms]:
        """E_q[log p(x | z, c)] (n,), exact or at one z ~ q, and the terms of the KL: the ELBO is their difference."""
        qz = self.encode(cells)
        z = qz.rsample()
        return self.likelihood.expected_log_prob(z, qz, cells), self.prior.kl(qz, z, cells)

    def log_weights(self, cells: Cells, n_samples: int) -> Tensor:
        """Log w (n_samples, n) of draws from q: their log mean exp is L_s, and log p(x | c) as s grows."""
        qz = self.encode(cells)
        z = qz.rsample((n_samples,))  # (s, n, d)
        return self.likelihood.log_prob(z, cells) + self.prior.log_ratio(qz, z, cells)

    @property
    def factors(self) -> Factors:
        """What the joint p and the posterior q factorise into; without c where nothing is registered."""
        decoder = "p(x | z, c)" if self.likelihood.trunk.n_conditions else "p(x | z)"
        generative, inference = (*self.prior.generative, decoder), ("q(z | x, c)", *self.prior.inference)
        if self.layout.n_conditions == 0:
            generative, inference = (tuple(f.replace(", c", "") for f in part) for part in (generative, inference))
        return Factors(generative, inference)

    @property
    def is_linear_gaussian(self) -> bool:
        """Whether x ~ N(W z + A c + b, sigma^2), so that the bound has no noise and the evidence a closed form."""
        return isinstance(self.likelihood, Normal) and self.likelihood.is_linear

    def exact_log_evidence(self, cells: Cells) -> Tensor:
        """Log p(x | c) = log sum_k pi_k N(x; W m_k + A c + b, W S_k W^T + sigma^2 I), (n,), in double precision."""
        log_pi, pz = self.prior.components(cells)
        z = pz.loc.transpose(0, 1).expand(-1, len(cells.x), -1)  # (K, n, d)
        w = self.likelihood.loc.weight[:, : z.shape[-1]].double()  # (g, d)
        px = LowRankMultivariateNormal(
            self.decode(z, cells).loc.double(),  # (K, n, g)
            w * pz.scale.double().transpose(0, 1).unsqueeze(-2),  # (K, n or 1, g, d)
            (2 * self.likelihood.log_sigma.double()).exp().expand(w.shape[0]),
            validate_args=False,
        )
        return (log_pi.double().unsqueeze(-1) + px.log_prob(dense(cells.x).double())).logsumexp(0)

    def objective(self, cells: Cells, n_samples: int = 1, kl_weight: float = 1.0, n_obs: int = 1) -> LossOutput:
        """Negative bound per cell, annealed terms weighted, plus -log p(parameters) / n_obs where there is one."""
        return LossOutput(**self.losses(cells, n_samples, kl_weight, n_obs))

    def losses(self, cells: Cells, n_samples: int = 1, kl_weight: float | Tensor = 1.0, n_obs: int = 1) -> dict:
        """What `objective` is made of, by the fields of scvi-tools' ``LossOutput``: tensors, as a compiler wants it."""
        qz = self.encode(cells)
        return self._losses(cells, qz, qz.rsample() if n_samples == 1 else qz.rsample((n_samples,)), kl_weight, n_obs)

    def _losses(self, cells: Cells, qz: Distribution, z: Tensor, kl_weight: float | Tensor, n_obs: int) -> dict:
        terms = self.prior.kl(qz, z, cells)
        means = {name: term.mean() for name, term in {**terms.annealed, **terms.fixed}.items()}
        if z.dim() == 2:
            log_px = self.likelihood.expected_log_prob(z, qz, cells)
            kl = reduce(torch.add, terms.annealed.values()) if terms.annealed else torch.zeros_like(log_px)
            bound = log_px - kl_weight * kl
        else:  # (s, n, d): L_s, whose KL is what it leaves of the mean log p(x | z, c)
            log_p = self.likelihood.log_prob(z, cells)  # (s, n)
            bound = log_mean_exp(log_p + kl_weight * self.prior.log_ratio(qz, z, cells))
            log_px = log_p.mean(0)
            kl = log_px - bound
        parameters = log_px.new_zeros(()) - self.prior.log_density()
        return {
            "loss": parameters / n_obs - bound.mean() + sum(means[name] for name in terms.fixed),
            "reconstruction_loss": -log_px,
            "kl_local": kl if z.dim() > 2 else terms.annealed or kl,
            "kl_global": parameters,
            "extra_metrics": means,
        }

    # What scvi-tools asks of a module: the same steps under its names.

    def _get_inference_input(self, tensors: dict[str, Tensor], **kwargs) -> dict:
        return {"cells": self.read(tensors)}

    def inference(self, cells: Cells, n_samples: int = 1) -> dict:
        """q(z | x, c) and z ~ q, (n, d) or (n_samples, n, d)."""
        qz = self.encode(cells)
        return {"cells": cells, "qz": qz, "z": qz.rsample() if n_samples == 1 else qz.rsample((n_samples,))}

    def _get_generative_input(self, tensors: dict[str, Tensor], inference_outputs: dict, **kwargs) -> dict:
        return {"z": inference_outputs["z"], "cells": inference_outputs["cells"]}

    def generative(self, z: Tensor, cells: Cells) -> dict:
        """p(x | z, c)."""
        return {"px": self.decode(z, cells)}

    def loss(
        self, tensors: dict, inference_outputs: dict, generative_outputs: dict, kl_weight: float = 1.0, n_obs: int = 1
    ) -> LossOutput:
        """See `objective`."""
        cells, qz, z = (inference_outputs[key] for key in ("cells", "qz", "z"))
        return LossOutput(**self._losses(cells, qz, z, kl_weight, n_obs))

    def sample(self, cells: Cells, z: Tensor) -> Tensor:
        """X ~ p(x | z, c), (n, g)."""
        return self.decode(z, cells).sample()


def log_mean_exp(log_w: Tensor) -> Tensor:
    """Log of the mean of w over its first axis."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def _one_hot(index: Tensor, levels: int, like: Tensor) -> Tensor:
    return one_hot(index.squeeze(-1).long(), levels).to(like)  # (n, 1) -> (n, levels)
