"""The values of the cells: what they are, which likelihood can describe them, and where raw counts may be."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse
from scvi import REGISTRY_KEYS

from mixvi._warnings import warn
from mixvi.data import (
    CellsManager,
    Support,
    check_support,
    choose_likelihood,
    describe,
    has_values,
)
from mixvi.model.registry import layout_of
from mixvi.model.unchanged import check_unchanged, values_of
from mixvi.module.cells import Layout
from mixvi.module.likelihoods import LIKELIHOODS, Likelihood

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

logger = logging.getLogger(__name__)

MAX_LOOKED_AT = 100  # cells by which matrices that may be raw counts, or lose detail, are told
DOUBLE_ROUNDING = 1e-12  # difference over size that comes from rounding only
DETAIL = 1e-5  # difference over size that single precision can hardly tell


def settle_likelihood(model: "LatentModel", likelihood: str, linear: bool = False) -> str:
    """Check that a likelihood can describe the registered data, or choose one.

    Parameters
    ----------
    model
        Model whose module is not yet made.
    likelihood
        Name of the likelihood; ``"auto"`` chooses one.
    linear
        Whether the model is linear: real values are then usual.

    Returns
    -------
    Name of the likelihood.

    Raises
    ------
    ValueError
        If there is no such likelihood, or it cannot describe the data.
    """
    if likelihood != "auto" and likelihood not in list(LIKELIHOODS):  # which need not be hashable
        raise ValueError(f"likelihood={likelihood!r} is not known; it is 'auto' or one of {sorted(LIKELIHOODS)}.")
    if model.adata is None or (likelihood != "auto" and not has_values(model.adata)):
        return likelihood  # loaded without values: the name was settled when the model was made
    check_unchanged(model)
    support = describe_values(model.registry_, model.adata_manager)
    if likelihood == "auto":
        likelihood, why = choose_likelihood(support, linear)
        logger.info("%s took %s", type(model).__name__, why)
        if support.kind == "real" and support.fraction is None and not linear:
            warn(
                f"{support.where} holds whole numbers, some below 0. If they are counts, correct the negative ones: "
                f"{support.negative}."
            )
        if support.kind == "real" and not linear:
            _point_to_counts(model.adata, support.where)
    check_support(support, likelihood, LIKELIHOODS[likelihood].support)
    if LIKELIHOODS[likelihood].support == "real":
        _warn_of_lost_detail(model.adata, model.registry_["setup_args"]["layer"])
    if layout_of(model.registry_).size_factor and LIKELIHOODS[likelihood].support != "count":
        raise ValueError(f"size_factor_key would be ignored under likelihood={likelihood!r}; leave it out.")
    return likelihood


def likelihood_of(likelihood: str, dispersion: str, layout: Layout) -> Callable[..., Likelihood]:
    """The likelihood of a module, with one dispersion for each gene, or for each gene and batch.

    Parameters
    ----------
    likelihood
        From `settle_likelihood`.
    dispersion
        ``"gene"`` or ``"gene-batch"``.
    layout
        What the decoder sees of the registered columns.

    Raises
    ------
    ValueError
        If there is no such dispersion, or no batch to have one.
    """
    if dispersion not in ("gene", "gene-batch"):
        raise ValueError(f"dispersion={dispersion!r} is not known; it is 'gene' or 'gene-batch'.")
    part: Callable[..., Likelihood] = LIKELIHOODS[likelihood]
    if dispersion == "gene":
        return part
    if likelihood not in (dispersed := ("nb", "zinb")):
        raise ValueError(
            f"likelihood={likelihood!r} has no dispersion, and dispersion='gene-batch' sets it. Leave dispersion out, "
            f"or take one of {list(dispersed)}."
        )
    if not layout.batch_levels:
        raise ValueError(
            "dispersion='gene-batch' needs a batch that the decoder sees. Name it as batch_key in setup_anndata(), or "
            "leave dispersion out."
        )
    return partial(part, by_batch=True)


def describe_values(registry: dict[str, Any], manager: CellsManager) -> Support:
    """Check the registered values and describe them.

    Parameters
    ----------
    registry
        Registry of the model.
    manager
        Manager of the cells.
    """
    _, where = values_of(manager.adata, registry["setup_args"]["layer"])
    matrix = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    return describe(matrix, where, manager.adata.obs_names, manager.adata.var_names)


def _some(values: Any) -> np.ndarray:
    """The first cells, dense."""
    some = values[:MAX_LOOKED_AT]
    return some.toarray() if issparse(some) else np.asarray(some)


def _warn_of_lost_detail(adata: AnnData, layer: str | None) -> None:
    """Warn of genes that differ between cells by less than single precision, in which models compute, can tell."""
    values, where = values_of(adata, layer)
    some = _some(values)
    if some.dtype == np.float32:
        return
    spread, size = np.ptp(some.astype(float), axis=0), abs(some.astype(float)).max(0)
    lost = (spread > DOUBLE_ROUNDING * size) & (spread < DETAIL * size)
    if lost.any():
        warn(
            f"{where} has {lost.sum():,} genes, such as {adata.var_names[lost.argmax()]!r}, whose values are large and "
            "hardly differ between cells. Models compute in single precision (7 digits), and so lose the differences. "
            "Subtract the mean of each gene first."
        )


def _point_to_counts(adata: AnnData, where: str) -> None:
    """Warn if the values are no counts, and another matrix beside them looks like raw counts."""
    beside: dict[str, tuple[Any, str]] = {
        f"adata.layers[{name!r}]": (values, f"adata, layer={name!r}") for name, values in adata.layers.items() if name
    }
    if adata.raw is not None:
        beside["adata.raw.X"] = adata.raw.X, "adata.raw.to_adata()"
    for name, (values, how) in beside.items():
        some = _some(values)
        if name != where and some.max(initial=0) > 1 and (some >= 0).all() and (some == np.floor(some)).all():
            warn(
                f"{where} has no counts, but {name} seems to have raw counts. To model them, call setup_anndata({how})."
            )


def largest(model: "LatentModel") -> str:
    """The largest value of the data, with its cell and gene."""
    matrix = model.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    if not (issparse(matrix) or isinstance(matrix, np.ndarray)):
        return "not known for data in a file"
    cell, gene = np.unravel_index(abs(matrix).argmax(), matrix.shape)
    adata = model.adata
    return f"{matrix[cell, gene]:g} in cell {adata.obs_names[cell]!r}, gene {adata.var_names[gene]!r}"
