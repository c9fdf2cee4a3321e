"""Minified cells: an AnnData that stores the posterior of each cell, with or without its values.

The form is that of scvi-tools: mean and variance in ``.obsm``, total count in ``.obs``, kind in ``.uns``.
"""

import copy

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, NumericalObsField, ObsmField, StringUnsField

from mixvi._upstream import MINIFY_TYPE

MEAN, VARIANCE, TOTAL = "mixvi_latent_qzm", "mixvi_latent_qzv", REGISTRY_KEYS.OBSERVED_LIB_SIZE
WITHOUT_VALUES, WITH_VALUES = "latent_posterior_parameters", "latent_posterior_parameters_with_counts"


def minified_type(adata: AnnData) -> str | None:
    """How an AnnData was minified: `WITHOUT_VALUES` or `WITH_VALUES`; ``None`` if it was not."""
    return adata.uns.get(MINIFY_TYPE)


def has_values(adata: AnnData) -> bool:
    """Whether an AnnData has the values of its cells. ``False`` if it was minified without them."""
    return minified_type(adata) != WITHOUT_VALUES


def minified_fields(adata: AnnData) -> list[BaseAnnDataField]:
    """What scvi-tools is to register of minified cells; nothing of others."""
    if minified_type(adata) is None:
        return []
    return [
        ObsmField(REGISTRY_KEYS.LATENT_QZM_KEY, MEAN),
        ObsmField(REGISTRY_KEYS.LATENT_QZV_KEY, VARIANCE),
        NumericalObsField(REGISTRY_KEYS.OBSERVED_LIB_SIZE, TOTAL),
        StringUnsField(REGISTRY_KEYS.MINIFY_TYPE_KEY, MINIFY_TYPE),
    ]


def minified_copy(
    adata: AnnData, mean: np.ndarray, variance: np.ndarray, total: np.ndarray, with_values: bool
) -> AnnData:
    """A copy of an AnnData that stores the posterior of each cell.

    Parameters
    ----------
    adata
        n cells.
    mean, variance
        (n, d) moments of the posterior.
    total
        (n,) total count of each cell.
    with_values
        Keep the values. Otherwise ``.X`` and all layers are zeros, and ``.raw`` is left out.
    """
    if with_values:
        mini = adata.to_memory() if adata.isbacked else adata.copy()
    else:
        zeros = csr_matrix(adata.shape, dtype=np.float32)
        parts = {name: getattr(adata, name).copy() for name in ("obs", "var", "obsm", "varm", "obsp", "varp")}
        mini = AnnData(None if adata.X is None else zeros, **parts, uns=copy.deepcopy(dict(adata.uns)))
        for name in filter(None, adata.layers):
            mini.layers[name] = zeros.copy()
    for key in [key for key in mini.uns if str(key).startswith("_scvi")]:  # they name the other AnnData
        del mini.uns[key]
    mini.uns[MINIFY_TYPE] = WITH_VALUES if with_values else WITHOUT_VALUES
    mini.obsm[MEAN], mini.obsm[VARIANCE], mini.obs[TOTAL] = mean, variance, total
    return mini


def copy_posterior(adata: AnnData, to: AnnData) -> None:
    """Copy what minified cells store to an AnnData of the same cells. Cells that are not minified store nothing.

    Parameters
    ----------
    adata
        n cells.
    to
        The same cells, with other content.
    """
    if minified_type(adata) is not None:
        to.uns[MINIFY_TYPE], to.obs[TOTAL] = adata.uns[MINIFY_TYPE], adata.obs[TOTAL].to_numpy()
        for key in (MEAN, VARIANCE):
            to.obsm[key] = np.asarray(adata.obsm[key])
