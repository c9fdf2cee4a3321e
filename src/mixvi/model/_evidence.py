"""Evidence: how probable a model finds each cell, all latent variables summed out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_whole
from mixvi.model import _outliers
from mixvi.model._mixin import Mixin
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells

VALUES_AT_ONCE = 20_000_000  # cells x genes x samples in memory


class LogEvidence(NamedTuple):
    """Log p(x | c) of each cell, in nats."""

    value: np.ndarray  # (n,)
    standard_error: np.ndarray  # (n,)


class EvidenceMixin(Mixin):
    """Abstract: evidence of cells, and p-values of new ones, for models with a posterior."""

    get_outlier_p = _outliers.get_outlier_p

    def get_log_evidence(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1000,
        batch_size: int | None = None,
    ) -> LogEvidence:
        """Importance-weighted bound on log p(x | c) under the model's own prior (Burda 2016, eq. 8).

        It lies below the evidence on average and rises to it with ``n_samples``. With one sample its mean is the ELBO,
        or more for a GMVAE: labels are not looked at, and clusters are summed out for every cell.

        Parameters
        ----------
        adata, indices, batch_size
            As in ``get_latent_representation``.
        n_samples
            Draws from the posterior of each cell.

        Returns
        -------
        ``value`` (n,) in nats, and its ``standard_error`` (n,) by the delta method. An error that does not shrink with
        more samples says that the posterior misses a part of the mass.
        """
        check_whole("n_samples", n_samples)
        batch_size = batch_size or 128

        def moments(cells: Cells) -> Tensor:
            cells = cells._replace(y=cells.y[:, :0])
            chunk = max(VALUES_AT_ONCE // cells.x.numel(), 1)
            log_w = torch.cat([
                self.module.log_weights(cells, min(chunk, n_samples - done)) for done in range(0, n_samples, chunk)
            ]).double()  # (s, n)  # fmt: skip
            log_mean = log_w.logsumexp(0) - np.log(n_samples)
            relative = (log_w - log_mean).exp()  # mean 1
            return torch.stack([log_mean, relative.std(0, correction=min(1, n_samples - 1)) / np.sqrt(n_samples)], 1)

        found = collect(self, moments, adata, indices, batch_size)
        return LogEvidence(found[:, 0], found[:, 1] if n_samples > 1 else np.full(len(found), np.inf))

    def get_marginal_ll(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_mc_samples: int = 1000,
        batch_size: int | None = None,
        return_mean: bool = True,
        n_mc_samples_per_pass: int | None = None,
    ) -> np.float64 | np.ndarray:
        """`get_log_evidence` under the name and arguments of scvi-tools.

        Parameters
        ----------
        adata, indices, batch_size
            As in ``get_latent_representation``.
        n_mc_samples
            Draws from the posterior of each cell.
        return_mean
            Return the mean over the cells.
        n_mc_samples_per_pass
            Has no effect: as many draws are made at a time as fit into memory.

        Returns
        -------
        The mean over cells, or (n,) with ``return_mean=False``, in nats.
        """
        check_whole("n_mc_samples_per_pass", n_mc_samples_per_pass, none="what fits into memory")
        value = self.get_log_evidence(adata, indices, n_mc_samples, batch_size).value
        return value.mean() if return_mean else value

    def exact_log_evidence(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Log p(x | c) in closed form, for models with a linear decoder and ``likelihood="normal"``.

        Then x is normal given c and, under a mixture prior, its component (Tipping & Bishop 1999, eq. 5).

        Parameters
        ----------
        adata, indices, batch_size
            As in ``get_latent_representation``; by default, minibatches have 128 cells.

        Returns
        -------
        (n,) in nats.

        Raises
        ------
        ValueError
            If the model has hidden layers, another likelihood or a hierarchical prior.
        """
        if not self.module.is_linear_gaussian:
            raise ValueError(
                f"This {type(self).__name__} has hidden layers or likelihood={self.likelihood_!r}: its evidence has no "
                "closed form. Use get_log_evidence(), or a model with n_layers=0 and likelihood='normal'."
            )
        return collect(self, self.module.exact_log_evidence, adata, indices, batch_size or 128)
