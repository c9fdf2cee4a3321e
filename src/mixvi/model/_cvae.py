"""Conditional variational autoencoder for AnnData."""

from itertools import product

import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_flag
from mixvi._version import __version__
from mixvi._warnings import warn
from mixvi.model._arguments import hidden_layers
from mixvi.model._base import LatentModel
from mixvi.model._conditional import ConditionalMixin, ConditionPrior
from mixvi.model._evidence import EvidenceMixin
from mixvi.model._unclustered import UnclusteredMixin
from mixvi.model.conditions import under, with_batches
from mixvi.model.registry import conditions_of, layout_of
from mixvi.model.streaming import check_trained
from mixvi.model.values import likelihood_of, settle_likelihood
from mixvi.module._cvae import CVAEModule
from mixvi.module.cells import Cells
from mixvi.module.priors import ConditionalNormal


class CVAE(UnclusteredMixin, ConditionalMixin, EvidenceMixin, LatentModel):
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
        variance), or ``"auto"``: chosen by the values.
    dispersion
        ``"gene"``: one inverse dispersion for each gene. ``"gene-batch"``: one for each gene and batch (``"nb"`` and
        ``"zinb"``), for batches that differ in their noise. ``"nb"`` then trains more slowly on a CPU.
    batch_representation, embedding_dim
        ``"one-hot"``: each batch has weights of its own. ``"embedding"``: a learned place in ``embedding_dim``
        dimensions, so that hundreds of batches need few weights.
    learned_prior
        ``False``: one prior N(0, I) for all conditions, and z forgets them (batch removal). ``True``: a normal for
        each condition, and z keeps them.
    decode_condition
        With a learned prior: whether the decoder sees the condition too. ``False`` leaves z alone to tell conditions
        apart, so that one decoder serves all of them.
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data (it says which cell and gene, and what to do), or
        ``decode_condition=False`` comes without ``learned_prior=True``: then nothing but the encoder would see c.

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
        dispersion: str = "gene",
        batch_representation: str = "one-hot",
        embedding_dim: int = 5,
        learned_prior: bool = False,
        decode_condition: bool = True,
        registry: dict | None = None,
    ):
        super().__init__(adata, registry)
        layout = layout_of(self.registry_)
        if not layout.n_conditions:
            warn("CVAE has no batch and no covariate to condition on: it is a plain VAE.")
        check_flag("learned_prior", learned_prior)
        check_flag("decode_condition", decode_condition)
        if not (decode_condition or learned_prior):
            raise ValueError(
                "With decode_condition=False and learned_prior=False, nothing depends on the condition. Pass "
                "learned_prior=True, or use mixvi.VAE."
            )
        if learned_prior and batch_representation != "one-hot":
            raise ValueError(
                "learned_prior=True gives each condition a place in the latent space, which batch_representation="
                f"{batch_representation!r} does not change; leave one of them out."
            )
        self.likelihood_ = likelihood = settle_likelihood(self, likelihood)
        hidden = hidden_layers(n_latent, n_hidden, n_layers, dropout_rate)
        hidden = with_batches(hidden, layout, batch_representation, embedding_dim)
        part = likelihood_of(likelihood, dispersion, layout if decode_condition else layout.without_conditions())
        self.module = CVAEModule(layout, part, n_latent, hidden, learned_prior, decode_condition)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    def condition_prior(self) -> ConditionPrior:
        """Place of each condition in the latent space, p(z | c) = N(loc, scale^2), with ``learned_prior=True``.

        Returns
        -------
        `ConditionPrior`: one row for each category of the batch, or for each combination of the categories of batch
        and covariates; continuous covariates are at their mean.

        Raises
        ------
        ValueError
            If the prior is the same for all conditions, or there is none.
        """
        if not isinstance(self.module.prior, ConditionalNormal):
            raise ValueError("This CVAE has one prior for all conditions; make it with learned_prior=True.")
        levels = {key: list(values) for key, values in conditions_of(self.registry_) if values is not None}
        if not levels:
            raise ValueError("This CVAE has no categorical condition to place; there is no batch and no covariate.")
        check_trained(self)
        nothing = torch.zeros(1, self.module.layout.n_conditions, device=self.device)
        named = [dict(zip(levels, values, strict=True)) for values in product(*levels.values())]
        with torch.inference_mode():
            pz = self.module.prior.given(torch.cat([under(self, condition)(nothing) for condition in named]))
        rows = pd.MultiIndex.from_frame(pd.DataFrame(named))
        rows = rows.get_level_values(0) if len(levels) == 1 else rows
        return ConditionPrior(*(pd.DataFrame(value.cpu().numpy(), rows) for value in (pz.loc, pz.scale)))

    def _draw_latent(self, cells: Cells, component: list[int] | None) -> Tensor:
        return self.module.prior.sample(cells.c)

    def _axes(self) -> None:
        return None
