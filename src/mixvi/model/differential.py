"""Differences between groups of cells, under the names of scvi-tools: methods of `LatentModel`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.model.base import RNASeqMixin
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, StudentT

from mixvi._warnings import warn
from mixvi.data import check_present, has_values
from mixvi.model._decoded import Rows
from mixvi.model.expression import check_counts
from mixvi.model.registration import registered
from mixvi.model.streaming import check_trained

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def differential_expression(
    model: "LatentModel", adata: AnnData | None = None, groupby: str | None = None, **kwargs
) -> pd.DataFrame:
    """Genes that differ between two groups of cells, by the posterior of the expected shares (Lopez 2018, Boyeau 2019).

    The groups must not come from these counts: if clusters were found in them, all tests on the same counts find
    differences (double dipping). For the clusters of a GMVAE, use ``markers()``, which tests held-out counts.

    Parameters
    ----------
    adata
        As in `get_latent_representation`.
    groupby
        Column of ``.obs`` with the groups.
    **kwargs
        As in :meth:`scvi.model.SCVI.differential_expression`: ``group1``, ``group2``, ``idx1``, ``idx2``, ``mode``
        (``"vanilla"`` or ``"change"``), ``delta``, ``batch_correction``, ``weights``, ``fdr_target`` and others. Of
        ``importance_weighting_kwargs``, ``n_mc_samples`` and ``n_mc_samples_per_pass``.

    Returns
    -------
    A row for each gene and comparison, as in scvi-tools.

    Raises
    ------
    ValueError
        If the model is not one of counts, or was set up without a batch and ``batch_correction=True``.
    """
    check_trained(model)
    check_counts(model, "differential_expression()", "a test of the groups in the values themselves")
    cells = registered(model, adata, minified=True).adata
    _check_groups(model.adata if adata is None else adata, groupby, kwargs)
    found = cells.uns.get(groupby) if groupby is not None else None
    if isinstance(found, Mapping) and {"model", "version", "settings"} <= set(found):
        warn(
            f"The clusters in .obs[{groupby!r}] were found in the counts that are now compared, so differences are "
            "overstated (double dipping). GMVAE.markers() tests counts that were held out."
        )
    if kwargs.get("batch_correction") and model.registry_["setup_args"]["batch_key"] is None:
        raise ValueError("batch_correction=True, but the model was set up without batch_key; leave it out.")
    if not has_values(cells) and kwargs.setdefault("all_stats", False):
        raise ValueError(
            "all_stats=True asks for statistics of the counts, which minified cells do not have; leave it out."
        )
    return RNASeqMixin.differential_expression(model, adata, groupby, **kwargs)


def get_aggregated_posterior(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    batch_size: int | None = None,
    dof: float | None = 3.0,
) -> MixtureSameFamily:
    """The mixture of the posteriors of all cells.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    dof
        Degrees of freedom of Student's t, which replaces the normal; ``None`` is the normal.

    Returns
    -------
    Distribution over z (d,).

    Raises
    ------
    ValueError
        If the model has no posterior.
    """
    moments = model.get_latent_representation(adata, indices, batch_size=batch_size, return_dist=True)
    loc, variance = map(torch.as_tensor, moments)
    if not (variance > 0).all():
        raise ValueError(f"{type(model).__name__} has no posterior; use mixvi.VAE.")
    scale = variance.sqrt()
    parts = Normal(loc, scale) if dof is None else StudentT(dof, loc, scale)
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(loc))), Independent(parts, 1))


def differential_abundance(
    model: "LatentModel",
    adata: AnnData | None = None,
    adata_sub: AnnData | None = None,
    sample_key: str | None = None,
    batch_size: int | None = None,
    num_cells_posterior: int | None = None,
    dof: float | None = None,
) -> pd.DataFrame:
    """Log density of each cell under the aggregated posterior of each sample.

    Parameters
    ----------
    adata, batch_size
        As in `get_latent_representation`.
    adata_sub
        Cells whose density is computed; ``None`` is all.
    sample_key
        Column of ``.obs`` with the samples.
    num_cells_posterior
        Largest number of cells in an aggregated posterior, drawn at random; ``None`` takes all.
    dof
        As in `get_aggregated_posterior`.

    Returns
    -------
    (n, samples) in nats, also in ``.obsm["da_log_probs"]``.

    Raises
    ------
    KeyError
        If there is no such column.
    """
    cells = registered(model, adata, minified=True).adata
    some = cells if adata_sub is None else registered(model, adata_sub, minified=True).adata
    if sample_key is None or sample_key not in cells.obs:
        raise KeyError(f"sample_key={sample_key!r}; it must be a column of .obs, which has {list(cells.obs)}.")
    z = torch.as_tensor(model.get_latent_representation(adata_sub if adata_sub is not None else adata))
    log_p = {}
    for sample in cells.obs[sample_key].unique():
        rows = np.flatnonzero(cells.obs[sample_key] == sample)
        if num_cells_posterior is not None and num_cells_posterior < len(rows):
            rows = np.random.choice(rows, num_cells_posterior, replace=False)
        posterior = get_aggregated_posterior(model, adata, rows, batch_size, dof)
        log_p[sample] = np.concatenate([posterior.log_prob(part).numpy() for part in z.split(batch_size or 128)])
    found = pd.DataFrame(log_p, index=some.obs_names)
    some.obsm["da_log_probs"] = found
    return found


def _check_groups(cells: AnnData, groupby: str | None, kwargs: dict) -> None:
    """Whether the groups to compare are in their column."""
    if groupby is None:
        return
    check_present(cells.obs, [groupby])
    there = list(cells.obs[groupby].unique())
    for name in ("group1", "group2"):
        given = kwargs.get(name)
        for group in given if isinstance(given, list | tuple) else [given]:
            if group is not None and group not in there:
                raise ValueError(f"{name}={group!r} is not in .obs[{groupby!r}], which has {there}.")
