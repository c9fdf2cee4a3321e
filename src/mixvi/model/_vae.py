"""Variational autoencoder for AnnData."""

from typing import Self

from anndata import AnnData
from scvi.model import SCVI
from torch import Tensor

from mixvi._checks import check_flag
from mixvi._version import __version__
from mixvi.model._arguments import hidden_layers
from mixvi.model._base import LatentModel
from mixvi.model._evidence import EvidenceMixin
from mixvi.model._from_scvi import from_scvi
from mixvi.model._linear import LinearMixin
from mixvi.model._unclustered import UnclusteredMixin
from mixvi.model.registry import layout_of
from mixvi.model.values import settle_likelihood
from mixvi.module._vae import VAEModule
from mixvi.module.cells import Cells
from mixvi.module.likelihoods import LIKELIHOODS


class VAE(UnclusteredMixin, LinearMixin, EvidenceMixin, LatentModel):
    """Variational autoencoder: a latent space with a prior, and an uncertainty for each cell's place in it.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`. It takes a layer and size factors; it has no use for batches or labels.
    n_latent
        Width d of the latent space.
    n_hidden, n_layers, dropout_rate
        Width, number and dropout of the hidden layers of encoder and decoder.
    likelihood
        ``"nb"``, ``"zinb"``, ``"poisson"`` (counts), ``"bernoulli"`` (values in [0, 1]), ``"normal"`` (any, one learned
        variance), or ``"auto"``: chosen by the values.
    linear
        No hidden layers, for any value of ``n_layers`` (``n_layers=0`` is the same). With ``likelihood="normal"``,
        which ``"auto"`` then takes, this is probabilistic PCA, and `principal_components` gives its axes.
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data; it says which cell and gene, and what to do.

    Examples
    --------
    >>> mixvi.VAE.setup_anndata(adata, layer="counts")
    >>> model = mixvi.VAE(adata)
    >>> model.train()
    >>> model.annotate()

    See Also
    --------
    mixvi.module.VAEModule : the maths
    """

    _ignores = {
        "batch_key": "CVAE",
        "categorical_covariate_keys": "CVAE",
        "continuous_covariate_keys": "CVAE",
        "labels_key": "GMVAE",
    }

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        likelihood: str = "auto",
        linear: bool = False,
        registry: dict | None = None,
    ):
        super().__init__(adata, registry)
        check_flag("linear", linear)
        n_layers = 0 if linear else n_layers
        self.likelihood_ = likelihood = settle_likelihood(self, likelihood, linear=n_layers == 0)
        hidden = hidden_layers(n_latent, n_hidden, n_layers, dropout_rate)
        self.module = VAEModule(layout_of(self.registry_), LIKELIHOODS[likelihood], n_latent, hidden)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def from_scvi(cls, model: SCVI, adata: AnnData | None = None) -> Self:
        """A VAE with the weights of a trained :class:`scvi.model.SCVI`.

        Both then give the same latents, expected shares, bound and differential expression.

        Parameters
        ----------
        model
            One batch, no covariates, and SCVI's defaults for batch norm, dispersion and observed library size.
        adata
            Cells with the genes of the model; ``None`` takes its AnnData.

        Raises
        ------
        ValueError
            If a VAE has no such part; it says which.
        """
        return from_scvi(cls, model, adata)  # type: ignore[return-value]

    def _draw_latent(self, cells: Cells, component: list[int] | None) -> Tensor:
        return self.module.prior.sample(cells.c)
