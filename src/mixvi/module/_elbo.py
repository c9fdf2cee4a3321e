"""The evidence lower bound (ELBO) that every model maximises.

    ELBO(x) = E_q(z | x, c)[ log p(x | z, c) ] - KL( q(z, ... | x, c) || p(z, ... | c) )

With s draws of z for each cell, it is the importance-weighted bound (Burda 2016), ELBO <= L_1 <= L_s <= log p(x | c):

    L_s(x) = E[ log 1/s sum_i w_i ],   w_i = p(x | z_i, c) p(z_i, ... | c) / q(z_i, ... | x, c),   z_i ~ q

A module has three parts: an encoder q(z | x, c), a prior p(z, ... | c) and a likelihood p(x | z, c). This file passes a
minibatch through the parts and adds up the terms. Letters: n cells, g genes, d latent, K components, q width of the
conditions, l classes.
"""

import math
from functools import reduce

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, EmbeddingModuleMixin, LossOutput
from torch import Tensor
from torch.distributions import Distribution, LowRankMultivariateNormal

from mixvi.module.cells import Cells, Layout, Standardised, read_cells
from mixvi.module.encoders import Encoder, Posterior
from mixvi.module.likelihoods import Likelihood, Normal
from mixvi.module.mixtures import MixturePrior
from mixvi.module.priors import Factors, Prior, Terms
from mixvi.module.query import check_all_seen, complete
from mixvi.ops.csr import dense


class ELBOModule(EmbeddingModuleMixin, BaseModuleClass):
    """Base class with the bound. The classes of the models add the three parts."""

    prior: Prior
    use_observed_lib_size = True  # for scvi-tools, which looks for it

    def __init__(self, layout: Layout, encoder: Encoder, prior: Prior, likelihood: Likelihood):
        super().__init__()
        self.layout = layout
        self.encoder, self.prior, self.likelihood = encoder, prior, likelihood
        if encoder.trunk.batches is not None:
            self.add_embedding(REGISTRY_KEYS.BATCH_KEY, encoder.trunk.batches)
        self.continuous = Standardised(layout.n_continuous) if layout.n_continuous else None
        self.unseen: Tensor | None = None  # (g,) genes that the cells lack, for a module that maps them

    def read(self, tensors: dict[str, Tensor]) -> Cells:
        """Convert the tensors of the loader, under the names of scvi-tools, to `Cells`."""
        cells = read_cells(tensors, self.layout, self.continuous, self.likelihood.prepare)
        if self.unseen is None or cells.stored.shape[-1]:
            return cells
        return complete(self, cells, self.unseen.to(cells.x.device))

    def encode(self, cells: Cells) -> Posterior:
        """q(z | x, c): loc and scale (n, d), as stored if the cells are minified."""
        if cells.stored.shape[-1]:
            return self.encoder.restored(*cells.stored.chunk(2, -1))
        return self.encoder(cells.seen, cells.c)

    def decode(self, z: Tensor, cells: Cells) -> Distribution:
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
        return self.likelihood(z, cells)

    def bound(self, cells: Cells) -> tuple[Tensor, Terms]:
        """E_q[log p(x | z, c)] (n,) in nats, exact or from one draw, and the KL terms. The ELBO is their difference."""
        check_all_seen(self.unseen)
        qz = self.encode(cells)
        z = qz.rsample()
        return self.likelihood.log_prob(z, cells, qz), self.prior.kl(qz, z, cells)

    def log_weights(self, cells: Cells, n_samples: int) -> Tensor:
        """Log importance weights of draws from q. Their log mean exp is L_s, which tends to log p(x | c).

        Parameters
        ----------
        cells
            n cells.
        n_samples
            Number s of draws for each cell, at least 1.

        Returns
        -------
        (s, n) nats.
        """
        check_all_seen(self.unseen)
        qz = self.encode(cells)
        z = qz.rsample((n_samples,))  # (s, n, d)
        return self.likelihood.log_prob(z, cells) + self.prior.log_ratio(qz, z, cells)

    @property
    def factors(self) -> Factors:
        """Factors of the joint p and of the posterior q. They show c only if conditions are registered."""
        decoder = "p(x | z, c)" if self.likelihood.trunk.n_conditions else "p(x | z)"
        generative, inference = (*self.prior.generative, decoder), ("q(z | x, c)", *self.prior.inference)
        if self.layout.n_conditions == 0:
            generative, inference = (tuple(f.replace(", c", "") for f in part) for part in (generative, inference))
        return Factors(generative, inference)

    @property
    def is_linear_gaussian(self) -> bool:
        """Whether x ~ N(W z + A c + b, sigma^2). Then the bound has no noise, and the evidence has a closed form."""
        return isinstance(self.likelihood, Normal) and self.likelihood.is_linear

    @property
    def gaussian(self) -> Normal:
        """The likelihood of a linear Gaussian model."""
        if not isinstance(self.likelihood, Normal):
            raise ValueError(f"The likelihood is {type(self.likelihood).__name__}, not Normal.")
        return self.likelihood

    @property
    def mixture(self) -> MixturePrior:
        """The prior of a model with components."""
        if not isinstance(self.prior, MixturePrior):
            raise ValueError(f"The prior is {type(self.prior).__name__}, not a mixture.")
        return self.prior

    def exact_log_evidence(self, cells: Cells) -> Tensor:
        """Log p(x | c) = log sum_k pi_k N(x; W m_k + A c + b, W S_k W^T + sigma^2 I), (n,), in double precision."""
        check_all_seen(self.unseen)
        log_pi, pz = self.prior.components(cells)
        z = pz.loc.transpose(0, 1).expand(-1, len(cells.x), -1)  # (K, n, d)
        w = self.gaussian.loadings[:, : z.shape[-1]].double()  # (g, d)
        px = LowRankMultivariateNormal(
            self.decode(z, cells).mean.double(),  # (K, n, g)
            w * pz.scale.double().transpose(0, 1).unsqueeze(-2),  # (K, n or 1, g, d)
            self.gaussian.sigma.double().square().expand(w.shape[0]),
            validate_args=False,
        )
        return (log_pi.double().unsqueeze(-1) + px.log_prob(dense(cells.x).double())).logsumexp(0)

    def objective(self, cells: Cells, n_samples: int = 1, kl_weight: float = 1.0, n_obs: int = 1) -> LossOutput:
        """Loss of a minibatch: negative bound per cell - log p(parameters) / n_obs.

        Parameters
        ----------
        cells
            n cells.
        n_samples
            Draws of z for each cell, at least 1. More than one gives the importance-weighted bound.
        kl_weight
            Weight of the annealed terms, 0 or more.
        n_obs
            Number of training cells.

        Returns
        -------
        Loss and its terms in nats, as scvi-tools logs them.
        """
        return LossOutput(**self.losses(**self.inference(cells, n_samples), kl_weight=kl_weight, n_obs=n_obs))

    def losses(self, cells: Cells, qz: Posterior, z: Tensor, kl_weight: float | Tensor = 1.0, n_obs: int = 1) -> dict:
        """The fields of ``objective`` as plain tensors, for the compiler. ``logits`` are log responsibilities (n, K).

        Parameters
        ----------
        cells, qz, z
            From ``inference``.
        kl_weight
            Weight of the annealed terms, 0 or more. A compiled loss needs a scalar tensor.
        n_obs
            Number of training cells.

        Returns
        -------
        Fields of ``scvi.module.base.LossOutput``.
        """
        terms = self.prior.kl(qz, z, cells)
        means = {name: term.mean() for name, term in {**terms.annealed, **terms.fixed}.items()}
        if z.dim() == 2:
            log_px = self.likelihood.log_prob(z, cells, qz)
            kl = reduce(torch.add, terms.annealed.values()) if terms.annealed else torch.zeros_like(log_px)
            bound = log_px - kl_weight * kl
        else:  # (s, n, d): L_s; its KL is the mean log p(x | z, c) - L_s
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
            "logits": terms.log_r,
        }

    # Methods that scvi-tools requires of a module

    def _get_inference_input(self, tensors: dict[str, Tensor], **kwargs) -> dict:
        return {"cells": self.read(tensors)}

    def inference(self, cells: Cells, n_samples: int = 1) -> dict:
        """Posterior and draws from it.

        Parameters
        ----------
        cells
            n cells.
        n_samples
            Draws s for each cell, at least 1.

        Returns
        -------
        ``cells``, ``qz`` (n, d), and ``z`` (n, d), or (s, n, d) with more than one draw.
        """
        qz = self.encode(cells)
        return {"cells": cells, "qz": qz, "z": qz.rsample() if n_samples == 1 else qz.rsample((n_samples,))}

    def _get_generative_input(self, tensors: dict[str, Tensor], inference_outputs: dict, **kwargs) -> dict:
        return {"z": inference_outputs["z"], "cells": inference_outputs["cells"]}

    def generative(self, z: Tensor, cells: Cells) -> dict:
        """p(x | z, c) under the name ``px``.

        Parameters
        ----------
        z
            (..., n, d) latent.
        cells
            n cells, for their conditions and library sizes.

        Returns
        -------
        ``px`` (..., n, g).
        """
        return {"px": self.decode(z, cells)}

    def loss(
        self, tensors: dict, inference_outputs: dict, generative_outputs: dict, kl_weight: float = 1.0, n_obs: int = 1
    ) -> LossOutput:
        """The loss of ``objective`` for given draws.

        Parameters
        ----------
        tensors
            Not used.
        inference_outputs
            Result of ``inference``.
        generative_outputs
            Not used.
        kl_weight
            Weight of the annealed terms, 0 or more.
        n_obs
            Number of training cells.

        Returns
        -------
        Loss and its terms in nats.
        """
        cells, qz, z = (inference_outputs[key] for key in ("cells", "qz", "z"))
        return LossOutput(**self.losses(cells, qz, z, kl_weight, n_obs))

    def sample(self, cells: Cells, z: Tensor) -> Tensor:
        """Draw x from p(x | z, c).

        Parameters
        ----------
        cells
            n cells, for their conditions and library sizes.
        z
            (..., n, d) latent.

        Returns
        -------
        (..., n, g) values.
        """
        return self.decode(z, cells).sample()


def log_mean_exp(log_w: Tensor) -> Tensor:
    """Log of the mean of w over the first axis of log w (s, ...)."""
    return log_w.logsumexp(0) - math.log(len(log_w))
