"""Principal components and loadings of linear models."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from mixvi.model._mixin import Mixin
from mixvi.model.streaming import check_trained, collect
from mixvi.model.unchanged import is_of_training
from mixvi.module.priors import Flat
from mixvi.ops.csr import dense

IN_USE = 1e-3  # standard deviation of the rebuilt cells along an axis, in sigmas; what is switched off is far below
RANK = 1e-6  # share of the first singular value that latents in single precision can tell from 0


class PrincipalComponents(NamedTuple):
    """Principal components of the cells, those of the largest variance first."""

    axes: np.ndarray  # (g, d) orthonormal; the largest entry of each is positive
    variance: np.ndarray  # (d,) of the cells along each axis, divided by n - 1 as scanpy does
    scores: np.ndarray  # (n, d) place of each cell, centred


class LinearMixin(Mixin):
    """Abstract: `principal_components` and `get_loadings`, for models that can be linear."""

    def get_loadings(self) -> pd.DataFrame:
        """Weights of the latent dimensions on the genes, for models without hidden layers (Svensson 2020).

        Under a likelihood of counts, they act on the log of the expected shares.

        Returns
        -------
        (g, d) table with columns ``"Z_0"``, ``"Z_1"`` and so on, as in :class:`scvi.model.LinearSCVI`.

        Raises
        ------
        ValueError
            If the model has hidden layers.
        """
        likelihood = self.module.likelihood
        if not likelihood.trunk.is_linear:
            raise ValueError(
                f"This {type(self).__name__} has hidden layers, so it has no loadings; use "
                f"mixvi.{type(self).__name__}(adata, linear=True)."
            )
        weight = likelihood.loadings[:, : self.module.encoder.loc.out_features].detach().cpu().numpy()
        return pd.DataFrame(weight, index=self.get_var_names(), columns=[f"Z_{j}" for j in range(weight.shape[1])])

    def principal_components(self) -> PrincipalComponents:
        """Principal components from a trained linear model: those of :func:`scanpy.pp.pca`, up to sign.

        The latent space of a linear autoencoder is the principal subspace, but its axes are not the principal axes
        (Plaut 2018, arXiv 1804.10253). Its reconstructed cells do have the principal axes, in their order. An AE
        projects the cells on the subspace. A VAE also multiplies each axis by 1 - sigma^2 / variance, which does not
        change the order (Lucas 2019, arXiv 1911.02469).

        Returns
        -------
        ``axes`` (g, d), ``variance`` (d,) and ``scores`` (n, d) of the cells that the model was made with. d is the
        number of latent dimensions in use. A VAE switches off dimensions whose variance is below its sigma^2. An AE
        uses at most as many as the rank of the cells.

        Raises
        ------
        ValueError
            If the model has hidden layers or another likelihood than ``"normal"``.
        """
        check_trained(self)
        if not self.module.is_linear_gaussian:
            raise ValueError(
                f"This {type(self).__name__} has likelihood={self.likelihood_!r} and n_layers="
                f"{self.init_params_['non_kwargs']['n_layers']}; only a linear model with likelihood='normal' has "
                f"principal components: mixvi.{type(self).__name__}(adata, linear=True)."
            )
        axes = self._rebuilt_axes()
        projected = collect(self, lambda cells: dense(cells.x).double() @ axes.to(self.device), None, None, None)
        scores = projected - projected.mean(0)
        variance = scores.var(0, ddof=min(1, len(scores) - 1))  # one cell has none
        order = np.argsort(-variance, kind="stable")
        return PrincipalComponents(axes.numpy()[:, order], variance[order], scores[:, order])

    def _axes(self) -> np.ndarray | None:
        """Principal axes (g, d); ``None`` if the model has none, or does not have the cells of its training."""
        if not self.module.is_linear_gaussian or self.adata is None or not is_of_training(self):
            return None
        return self.principal_components().axes

    def _rebuilt_axes(self) -> torch.Tensor:
        """Right singular vectors (g, d) of the rebuilt cells; the largest entry of each is positive."""
        z = torch.as_tensor(self.get_latent_representation()).double()
        weight = self.module.gaussian.loadings.detach().cpu().double()  # (g, d)
        basis, r = torch.linalg.qr(weight)  # cells rebuilt: (z - mean) r^T basis^T, without an n x g matrix
        _, singular, v = torch.linalg.svd((z - z.mean(0)) @ r.T, full_matrices=False)
        if isinstance(self.module.prior, Flat):
            limit = RANK * singular[0]
        else:
            limit = IN_USE * self.module.gaussian.sigma.item() * len(z) ** 0.5
        axes = basis @ v[singular > limit].T
        return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
