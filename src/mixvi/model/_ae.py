"""Autoencoder for AnnData."""

from functools import partial

import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_flag
from mixvi._version import __version__
from mixvi.model._arguments import hidden_layers
from mixvi.model._base import LatentModel
from mixvi.model._linear import LinearMixin
from mixvi.model._unclustered import UnclusteredMixin
from mixvi.model.registry import layout_of
from mixvi.model.values import settle_likelihood
from mixvi.module._ae import AEModule
from mixvi.module.cells import Cells
from mixvi.module.likelihoods import LIKELIHOODS, Normal


class AE(UnclusteredMixin, LinearMixin, LatentModel):
    """Autoencoder: the smallest latent space from which the cells can be rebuilt.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`. It takes a layer and size factors; it has no use for batches or labels.
    n_latent
        Width d of the latent space.
    n_hidden, n_layers, dropout_rate
        Width, number and dropout of the hidden layers of encoder and decoder.
    likelihood
        ``"nb"``, ``"zinb"``, ``"poisson"`` (counts), ``"bernoulli"`` (values in [0, 1]), ``"normal"`` (any; here the
        variance is fixed at 1, which is the squared error), or ``"auto"``: chosen by the values.
    linear
        No hidden layers, for any value of ``n_layers`` (``n_layers=0`` is the same). With ``likelihood="normal"``,
        which ``"auto"`` then takes, this is PCA, and `principal_components` gives its axes.
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data; it says which cell and gene, and what to do.

    Examples
    --------
    >>> mixvi.AE.setup_anndata(adata, layer="counts")
    >>> model = mixvi.AE(adata)
    >>> model.train()
    >>> model.annotate(clustering="leiden")

    See Also
    --------
    mixvi.module.AEModule : the maths
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
        part = partial(Normal, sigma=1.0) if likelihood == "normal" else LIKELIHOODS[likelihood]
        hidden = hidden_layers(n_latent, n_hidden, n_layers, dropout_rate)
        self.module = AEModule(layout_of(self.registry_), part, n_latent, hidden)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    def _draw_latent(self, cells: Cells, component: list[int] | None) -> Tensor:
        # An AE has no prior. One normal fitted to its latents takes that place (Ghosh 2020, "ex-post density").
        z = torch.as_tensor(self.get_latent_representation())
        d, floor = z.shape[1], 1e-6 * torch.eye(z.shape[1])
        covariance = torch.cov(z.T, correction=min(1, len(z) - 1)).reshape(d, d) + floor  # one cell has none
        density = torch.distributions.MultivariateNormal(z.mean(0), covariance)
        return density.sample((len(cells.x),)).to(cells.x)
