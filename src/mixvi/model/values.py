"""The values that a model was made with: which likelihood can describe them, and whether they were changed since."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse
from scvi import REGISTRY_KEYS

from mixvi._warnings import warn
from mixvi.data import (
    MEAN,
    VARIANCE,
    CellsManager,
    Support,
    check_dtype,
    check_support,
    choose_likelihood,
    column_fingerprint,
    describe,
    fingerprint,
    has_values,
    same_values,
)
from mixvi.model.registry import conditions_of, layout_of
from mixvi.module.cells import Layout
from mixvi.module.likelihoods import LIKELIHOODS, Likelihood

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

logger = logging.getLogger(__name__)

LOOK = 100  # cells by which matrices that may be raw counts are told


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
                f"{support.where} holds whole numbers only; if they are counts, mend those that are negative: "
                f"{support.negative}."
            )
        if support.kind == "real" and not linear:
            _point_to_counts(model.adata, support.where)
    check_support(support, likelihood, LIKELIHOODS[likelihood].support)
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


def _point_to_counts(adata: AnnData, where: str) -> None:
    """Warn if the values are no counts, and another matrix beside them looks like raw counts."""
    beside: dict[str, tuple[Any, str]] = {
        f"adata.layers[{name!r}]": (values, f"adata, layer={name!r}") for name, values in adata.layers.items() if name
    }
    if adata.raw is not None:
        beside["adata.raw.X"] = adata.raw.X, "adata.raw.to_adata()"
    for name, (values, how) in beside.items():
        some = values[:LOOK]
        some = some.toarray() if issparse(some) else np.asarray(some)
        if name != where and some.max(initial=0) > 1 and (some >= 0).all() and (some == np.floor(some)).all():
            warn(
                f"{where} has no counts, but {name} seems to have raw counts. To model them, call setup_anndata({how})."
            )


class Seen(NamedTuple):
    """What a model was made with."""

    n_cells: int
    values: np.ndarray  # from `fingerprint`
    columns: dict[str, str | None]  # from `column_fingerprint`; None if there is no such column


def look_at(adata: AnnData, setup_args: dict[str, Any]) -> Seen:
    """The registered values and columns of an AnnData, as fingerprints.

    Parameters
    ----------
    adata
        Cells.
    setup_args
        Arguments of ``setup_anndata``, by name.
    """
    if has_values(adata):
        matrix, where = values_of(adata, setup_args["layer"])
        check_dtype(matrix, where)
    else:
        matrix = np.concatenate([adata.obsm[MEAN], adata.obsm[VARIANCE]], 1)
    single = [setup_args[key] for key in ("batch_key", "labels_key", "size_factor_key")]
    joint = [*(setup_args["categorical_covariate_keys"] or []), *(setup_args["continuous_covariate_keys"] or [])]
    keys = [key for key in (*single, *joint) if key is not None]
    columns = {key: column_fingerprint(adata.obs[key]) if key in adata.obs else None for key in keys}
    return Seen(adata.n_obs, fingerprint(matrix), columns)


def check_unchanged(model: "LatentModel") -> None:
    """Raise if genes, cells, values or registered columns of a model's own AnnData changed since ``setup_anndata``."""
    genes = model.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    args, what = model.registry_["setup_args"], None
    if not np.array_equal(model.adata.var_names.astype(str), np.asarray(genes, dtype=str)):
        what = "genes, or their order,"
    elif values_of(model.adata, args["layer"])[0] is None:
        what = "values"
    else:
        now, held = look_at(model.adata, args), getattr(model, "_seen", None)
        if held is None or held[0] is not model.adata:
            held = model._seen = model.adata, model.adata_manager.seen or now
        then = held[1]
        changed = [key for key, found in now.columns.items() if found != then.columns[key]]
        if now.n_cells != then.n_cells:
            what = "cells or values"
        elif np.isfinite(then.values).all() and not same_values(now.values, then.values):
            what = "values"
        elif changed:
            what = "size factors" if changed[0] == args["size_factor_key"] else f"column .obs[{changed[0]!r}]"
    if what:
        raise ValueError(
            f"The {what} of this {type(model).__name__}'s AnnData changed after setup_anndata. Undo that, or call "
            "setup_anndata again and make a new model. To keep a model's data as they are, change a copy."
        )


def totals_of(model: "LatentModel") -> tuple[int, float, float]:
    """Number of cells of a model's AnnData, and sums of their fingerprint with a random weight for each cell.

    They differ for other cells, and for the same cells in another order. The sums of a matrix in a file are NaN.
    """
    now = look_at(model.adata, model.registry_["setup_args"])
    if len(now.values) < now.n_cells:
        return now.n_cells, np.nan, np.nan
    weight = np.random.default_rng(0).uniform(0.5, 1.5, now.n_cells)
    return now.n_cells, *(weight @ now.values[:, :2]).tolist()


def remember_cells(model: "LatentModel") -> None:
    """Note which cells a model was trained on, and which levels of its conditions had none."""
    model.trained_on_ = totals_of(model)
    obs, levels = model.adata.obs, {key: found for key, found in conditions_of(model.registry_) if found is not None}
    model.empty_levels_ = {key: np.setdiff1d(found, obs[key].unique()).tolist() for key, found in levels.items()}


def check_cells(model: "LatentModel", what: str) -> None:
    """Raise if a model was loaded with other cells than it was trained on.

    Parameters
    ----------
    model
        A trained model.
    what
        What needs the cells of the training, for the message.

    Raises
    ------
    ValueError
        If it has other cells.
    """
    if not is_of_training(model):
        raise ValueError(
            f"This {type(model).__name__} was loaded with other cells than it was trained on. {what} needs those "
            "of the training: load the model with them, or make a new model."
        )


def is_of_training(model: "LatentModel") -> bool:
    """Whether the AnnData of a model has the cells that it was trained on."""
    if not has_values(model.adata):
        return False
    then = getattr(model, "trained_on_", None)
    if then is None:
        return True
    return same_totals(totals_of(model), then)


def same_totals(now: Sequence[float], then: Sequence[float]) -> bool:
    """Whether two results of `totals_of` may be of the same cells: those of a file are not known.

    Parameters
    ----------
    now, then
        Three numbers each.
    """
    return bool(now[0] == then[0] and (np.isnan([*now, *then]).any() or np.allclose(now, then, rtol=1e-9, atol=0)))


def values_of(adata: AnnData, layer: str | None) -> tuple[Any, str]:
    """The values of ``.X`` or of a layer, ``None`` if there are none; and their name for messages.

    Parameters
    ----------
    adata
        Cells.
    layer
        Name of the layer; ``None`` is ``.X``.
    """
    return (adata.X, "adata.X") if layer is None else (adata.layers.get(layer), f"adata.layers[{layer!r}]")


def largest(model: "LatentModel") -> str:
    """The largest value of the data, with its cell and gene."""
    matrix = model.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    if not (issparse(matrix) or isinstance(matrix, np.ndarray)):
        return "not known for data in a file"
    cell, gene = np.unravel_index(abs(matrix).argmax(), matrix.shape)
    adata = model.adata
    return f"{matrix[cell, gene]:g} in cell {adata.obs_names[cell]!r}, gene {adata.var_names[gene]!r}"
