"""Autoencoder."""

from collections.abc import Callable

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Layout
from mixvi.module.encoders import DeltaEncoder
from mixvi.module.likelihoods import Likelihood
from mixvi.module.nets import Hidden
from mixvi.module.priors import Flat


class AEModule(ELBOModule):
    """The autoencoder: the bound with a posterior that is a point.

    ::

        generative   p(x, z | c) = p(z) p(x | z),         p(z) flat
        inference    q(z | x)    = delta(z - e(x))

        ELBO(x) = log p(x | z),                           z = e(x)

    The entropy of the delta and the mass of the flat prior are infinite, but do not depend on the parameters. Without
    them, the bound is the log-likelihood. With ``Normal(sigma=1)`` it is the squared error,
    log p(x | z) = -||x - mu(z)||^2 / 2 - (g / 2) log 2 pi. Without hidden layers, the optimum then spans the principal
    subspace (Baldi & Hornik 1989).
    """

    def __init__(
        self,
        layout: Layout,
        likelihood: Callable[[Layout, int, Hidden], Likelihood],
        n_latent: int = 10,
        hidden: Hidden = Hidden(),
    ):
        super().__init__(
            layout,
            encoder=DeltaEncoder(layout.n_genes, layout.n_conditions, n_latent, hidden),
            prior=Flat(),
            likelihood=likelihood(layout, n_latent, hidden),
        )
