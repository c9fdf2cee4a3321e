"""Conditional variational autoencoder."""

from collections.abc import Callable

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Layout
from mixvi.module.encoders import NormalEncoder
from mixvi.module.likelihoods import Likelihood
from mixvi.module.nets import Hidden
from mixvi.module.priors import ConditionalNormal, StandardNormal


class CVAEModule(ELBOModule):
    """The conditional variational autoencoder (Sohn 2015), with a choice of two priors.

    ::

        generative   p(x, z | c) = p(z | c) p(x | z, c)
                     p(z | c)    = N(0, I)                 the latent forgets c; the decoder uses c
                                or N(m(c), diag s(c)^2)    the latent keeps c (learned prior);
                                                           the decoder may be p(x | z)
        inference    q(z | x, c) = N(m(x, c), diag s(x, c)^2)

        ELBO(x | c) = E_q[ log p(x | z, c) ] - kl_z
        kl_z        = KL(q(z | x, c) || p(z | c))
    """

    def __init__(
        self,
        layout: Layout,
        likelihood: Callable[[Layout, int, Hidden], Likelihood],
        n_latent: int = 10,
        hidden: Hidden = Hidden(),
        learned_prior: bool = False,
        decode_condition: bool = True,
    ):
        prior = ConditionalNormal(layout.n_conditions, n_latent) if learned_prior else StandardNormal(n_latent)
        super().__init__(
            layout,
            encoder=NormalEncoder(layout.n_genes, layout.n_conditions, n_latent, hidden),
            prior=prior,
            likelihood=likelihood(layout if decode_condition else layout.without_conditions(), n_latent, hidden),
        )
