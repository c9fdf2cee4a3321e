"""Conditional variational autoencoder for AnnData."""

import logging

from anndata import AnnData
from torch import Tensor

from mixvi._version import __version__
from mixvi.model._evidence import EvidenceMixin
from mixvi.model._unclustered import UnclusteredMixin
from mixvi.module._cvae import CVAEModule
from mixvi.module._elbo import Cells
from mixvi.module.likelihoods import LIKELIHOODS

logger = logging.getLogger(__name__)


class CVAE(UnclusteredMixin, EvidenceMixin):
    """Conditional variational autoencoder: encoder and decoder see batch and covariates, so z need not hold them.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`, with a batch or covariates to condition on.
    n_latent
        Width d of the latent space.
    n_hidden, n_layers, dropout_rate
        Width, number and dropout of the hidden layers of encoder and decoder; ``n_layers=0`` is a linear map.
    likelihood
        ``"nb"``, ``"zinb"``, ``"poisson"`` (counts), ``"bernoulli"`` (values in [0, 1]), ``"normal"`` (any, one learned
        variance), or ``"auto"``: a look at the data.
    learned_prior
        ``False``: one prior N(0, I) for all conditions, and z forgets them (batch removal). ``True``: a normal for
        each condition, and z keeps them.
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data; it says which cell and gene, and what to do.

    Examples
    --------
    >>> mixvi.CVAE.setup_anndata(adata, layer="counts", batch_key="batch")
    >>> model = mixvi.CVAE(adata)
    >>> model.train()
    >>> model.annotate(clustering="leiden")

    See Also
    --------
    mixvi.module.CVAEModule : the maths
    """

    _ignores = {"labels_key": "GMVAE"}

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        likelihood: str = "auto",
        learned_prior: bool = False,
        registry: dict | None = None,
    ):
        super().__init__(adata, registry)
        layout = self._layout()
        if not layout.n_conditions:
            logger.warning("CVAE has no batch and no covariate to condition on: it is a plain VAE.")
        self.likelihood_ = likelihood = self._likelihood(likelihood)
        hidden = self._hidden(n_latent, n_hidden, n_layers, dropout_rate)
        self.module = CVAEModule(layout, LIKELIHOODS[likelihood], n_latent, hidden, learned_prior)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    def _draw_latent(self, cells: Cells, component: None) -> Tensor:
        return self.module.prior.sample(cells.c)

    def _axes(self) -> None:
        return None
