"""Gaussian-mixture variational autoencoder."""

from collections.abc import Callable

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Layout
from mixvi.module.encoders import NormalEncoder
from mixvi.module.likelihoods import Likelihood
from mixvi.module.mixtures import GaussianMixture, HierarchicalMixture, MixturePrior
from mixvi.module.nets import Hidden


class GMVAEModule(ELBOModule):
    """A variational autoencoder whose prior is a mixture. Clusters are components, or sums of several.

    ::

        generative   p(x, z, y | c) = p(y) p(z | y) p(x | z, c)
                     p(y) = Cat(pi),  pi ~ Dirichlet(alpha),  p(z | y = k) = N(mu_k, diag s_k^2)
        inference    q(z, y | x, c) = q(z | x, c) r(x, c),  q(z | x, c) = N(m(x, c), diag s(x, c)^2)
                     r_k = softmax_k( log pi_k - KL_k ),  KL_k = KL(q(z | x, c) || p(z | y = k))

        ELBO(x | c) = E_q[ log p(x | z, c) ] - kl_z - kl_y
        kl_z = sum_k r_k KL_k
        kl_y = KL(Cat(r) || Cat(pi)) = sum_k r_k log(r_k / pi_k)

    For this q(z | x, c), r is the q(y | x, c) with the largest bound. Then kl_z + kl_y = -log sum_k pi_k exp(-KL_k).
    For a labelled cell, r is one-hot instead, so kl_y = -log pi_y. The loss of such a cell adds ``label`` = -log r_y,
    the classification loss (Kingma 2014), with the r of the formula. The weights add -log Dirichlet(pi | alpha) once
    for all cells. A temperature T >= 1 calibrates the probabilities that users get. It is found at the end of training
    (`mixvi.cluster.calibration`).

    With ``hierarchical=True``, a second latent w ~ N(0, I) shapes the components (Dilokthanakul 2016):
    p(z | w, y = k) = N(mu_k(w), diag s_k(w)^2). q(w | x, c) is a diagonal normal, and KL_k uses one draw of w from it.
    A further term is kl_w = KL(q(w | x, c) || N(0, I)).
    """

    prior: MixturePrior

    def __init__(
        self,
        layout: Layout,
        likelihood: Callable[[Layout, int, Hidden], Likelihood],
        n_components: int | None,
        n_latent: int = 10,
        hidden: Hidden = Hidden(),
        concentration: float = 1.0,
        hierarchical: bool = False,
    ):
        prior: MixturePrior
        if hierarchical:
            prior = HierarchicalMixture(layout, n_components, n_latent, hidden, concentration)
        else:
            prior = GaussianMixture(n_components, n_latent, concentration)
        super().__init__(
            layout,
            encoder=NormalEncoder(layout.n_genes, layout.n_conditions, n_latent, hidden),
            prior=prior,
            likelihood=likelihood(layout, n_latent, hidden),
        )
