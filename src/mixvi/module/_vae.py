"""Variational autoencoder."""

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Layout
from mixvi.module.encoders import NormalEncoder
from mixvi.module.likelihoods import Likelihood
from mixvi.module.nets import Hidden
from mixvi.module.priors import StandardNormal


class VAEModule(ELBOModule):
    """The plain variational autoencoder (Kingma & Welling 2014).

    ::

        generative   p(x, z)  = p(z) p(x | z),            p(z) = N(0, I)
        inference    q(z | x) = N(m(x), diag s(x)^2)

        ELBO(x) = E_q[ log p(x | z) ] - kl_z
        kl_z    = KL(q(z | x) || N(0, I)) = 1/2 sum_j ( m_j^2 + s_j^2 - 1 - log s_j^2 )
    """

    def __init__(self, layout: Layout, likelihood: type[Likelihood], n_latent: int = 10, hidden: Hidden = Hidden()):
        super().__init__(
            layout,
            encoder=NormalEncoder(layout.n_genes, layout.n_conditions, n_latent, hidden),
            prior=StandardNormal(n_latent),
            likelihood=likelihood(layout, n_latent, hidden),
        )
