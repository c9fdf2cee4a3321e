"""What a model knows of an AnnData: where its values are, and whether it can describe them."""

import logging
from difflib import get_close_matches
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from mixvi._warnings import warn
from mixvi.data import (
    CellsManager,
    LabelsField,
    Support,
    check_columns,
    check_layer,
    check_levels,
    check_names,
    check_support,
    choose_likelihood,
    describe,
    fingerprint,
    same_values,
    stand_in,
)
from mixvi.module.cells import Layout
from mixvi.module.likelihoods import LIKELIHOODS
from mixvi.module.nets import Hidden

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

logger = logging.getLogger(__name__)

COUNTS = "adata.layers['counts']"
NO_LABEL = "unlabeled"  # the category of cells without a label, where the user names none
NO_CLASS = ("unknown", "unlabelled", "unassigned", "undefined", "none", "nan", "na", "n/a", "?", "")  # other such names


def register(
    cls: type["LatentModel"], adata: AnnData, setup_args: dict[str, Any], source_registry: dict | None = None
) -> CellsManager:
    """Check the registration and carry it out; see `LatentModel.setup_anndata`."""
    for argument, other in cls._ignores.items():
        if setup_args[argument]:
            raise ValueError(
                f"{cls.__name__} got {argument}={setup_args[argument]!r}, which it would ignore; "
                f"use mixvi.{other}, or leave {argument} out."
            )
    layer, batch, labels, no_label, size_factor = (
        setup_args[key] for key in ("layer", "batch_key", "labels_key", "unlabeled_category", "size_factor_key")
    )
    for key in ("categorical_covariate_keys", "continuous_covariate_keys"):
        if isinstance(setup_args[key], str):
            raise ValueError(f"{key}={setup_args[key]!r} is one name; pass a list, [{setup_args[key]!r}].")
    categorical, continuous = (
        list(setup_args[f"{kind}_covariate_keys"] or []) for kind in ("categorical", "continuous")
    )
    if no_label is not None and labels is None:
        raise ValueError(f"unlabeled_category={no_label!r} needs labels_key, the column it stands in.")
    check_layer(adata, layer)
    check_columns(adata.obs, [key for key in (batch, *categorical) if key])
    advice = "give cells without a label one category of their own and name it as unlabeled_category"
    check_columns(adata.obs, [labels] if labels else [], advice=advice)
    if labels is not None and source_registry is None:
        _check_labels(adata, labels, no_label)
    check_columns(adata.obs, continuous, numeric=True)
    check_columns(adata.obs, [size_factor] if size_factor else [], numeric=True, positive=True)

    fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False)]
    if batch is not None:
        fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch))
    if labels is not None:
        fields.append(LabelsField(REGISTRY_KEYS.LABELS_KEY, labels, NO_LABEL if no_label is None else no_label))
    if size_factor is not None:
        fields.append(NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor))
    if categorical:
        fields.append(CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical))
    if continuous:
        fields.append(NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous))
    manager = CellsManager(fields, cls._get_setup_method_args(cls=cls, adata=adata, **setup_args))
    manager.register_fields(adata, source_registry)
    return manager


def registered(model: "LatentModel", adata: AnnData | None) -> CellsManager:
    """The manager of the model's own AnnData, or one for new cells, which are not written to."""
    if adata is None and model.adata is None:
        raise ValueError(f"This {type(model).__name__} was loaded without data; pass adata=.")
    if adata is None or adata is model.adata:
        check_unchanged(model)
        model._validate_anndata(model.adata)
        return model.adata_manager
    if not isinstance(adata, AnnData):
        raise TypeError(f"{type(model).__name__} got a {type(adata).__name__} for cells; pass an AnnData.")
    args = model.registry_["setup_args"]
    cells = stand_in(adata, model.get_var_names(), args, NO_LABEL)
    check_levels(cells.obs, {key: levels for key, levels in conditions_of(model.registry_) if levels is not None})
    manager = register(type(model), cells, args, model.registry_)
    check_support(describe_values(model.registry_, manager), model.likelihood_, LIKELIHOODS[model.likelihood_].support)
    return manager


def check_unchanged(model: "LatentModel") -> None:
    """Raise if genes, cells or values of a model's own AnnData are not those that the model was made with."""
    genes = model.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    what = None
    if not np.array_equal(model.adata.var_names.astype(str), np.asarray(genes, dtype=str)):
        what = "genes, or their order,"
    elif (now := _fingerprint(model)) is not None:
        seen = getattr(model, "_seen", None)
        if seen is None or seen[0] is not model.adata:
            model._seen = model.adata, now
        elif not same_values(now, seen[1]):
            what = "cells or values" if len(now) != len(seen[1]) else "values"
    if what:
        raise ValueError(
            f"The {what} of this {type(model).__name__}'s AnnData changed after setup_anndata. Undo that, or call "
            "setup_anndata again and make a new model. To keep a model's data as they are, change a copy."
        )


def _fingerprint(model: "LatentModel") -> np.ndarray | None:
    layer = model.registry_["setup_args"]["layer"]
    return fingerprint(model.adata.X if layer is None else model.adata.layers.get(layer))


def layout_of(registry: dict[str, Any]) -> Layout:
    """What is registered, for the module."""
    fields = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    return Layout(
        n_genes=fields[REGISTRY_KEYS.X_KEY]["n_vars"],
        batch_levels=len(fields.get(REGISTRY_KEYS.BATCH_KEY, {}).get("categorical_mapping", [])),
        covariate_levels=tuple(fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])),
        n_continuous=len(fields.get(REGISTRY_KEYS.CONT_COVS_KEY, {}).get("columns", [])),
        n_labels=max(len(fields.get(REGISTRY_KEYS.LABELS_KEY, {}).get("categorical_mapping", [])) - 1, 0),
        size_factor=REGISTRY_KEYS.SIZE_FACTOR_KEY in fields,
    )


def conditions_of(registry: dict[str, Any]) -> list[tuple[str, np.ndarray | None]]:
    """What c is made of, in its order: columns of ``.obs`` with their categories, ``None`` for a continuous one."""
    fields = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    batch, covariates = (fields.get(key, {}) for key in (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY))
    return [
        *([(batch["original_key"], batch["categorical_mapping"])] if batch else []),
        *((key, covariates["mappings"][key]) for key in covariates.get("field_keys", [])),
        *((key, None) for key in fields.get(REGISTRY_KEYS.CONT_COVS_KEY, {}).get("columns", [])),
    ]


def covariate_keys(registry: dict[str, Any]) -> list[str]:
    """Columns of ``.obs`` that the model reads of a cell, but for its label."""
    args = registry["setup_args"]
    single = [args[key] for key in ("batch_key", "size_factor_key") if args[key]]
    keys = [*single, *(args["categorical_covariate_keys"] or []), *(args["continuous_covariate_keys"] or [])]
    return list(dict.fromkeys(keys))


def settle_likelihood(model: "LatentModel", likelihood: str, linear: bool = False) -> str:
    """Name of a likelihood that can describe the registered data; ``"auto"`` chooses one."""
    if likelihood != "auto" and likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood={likelihood!r} is not known; it is 'auto' or one of {sorted(LIKELIHOODS)}.")
    if model.adata is None:
        return likelihood  # loaded without data: the name was settled when the model was made
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
        if support.kind == "real" and not linear and "counts" in model.adata.layers and support.where != COUNTS:
            warn("layers['counts'] is there too; for raw counts, setup_anndata(adata, layer='counts').")
    check_support(support, likelihood, LIKELIHOODS[likelihood].support)
    if layout_of(model.registry_).size_factor and LIKELIHOODS[likelihood].support != "count":
        raise ValueError(f"size_factor_key would be ignored under likelihood={likelihood!r}; leave it out.")
    return likelihood


def describe_values(registry: dict[str, Any], manager: CellsManager) -> Support:
    """What kind of values are registered."""
    layer = registry["setup_args"]["layer"]
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    matrix = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    return describe(matrix, where, manager.adata.obs_names, manager.adata.var_names)


def hidden_layers(n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float) -> Hidden:
    """The hidden layers, once their sizes make sense."""
    for name, value, least in (("n_latent", n_latent, 1), ("n_hidden", n_hidden, 1), ("n_layers", n_layers, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r}; it must be a whole number of at least {least}.")
    if not 0 <= dropout_rate < 1:
        raise ValueError(f"dropout_rate={dropout_rate!r}; it must be at least 0 and below 1.")
    return Hidden(n_hidden, n_layers, dropout_rate)


def _check_labels(adata: AnnData, labels: str, no_label: str | None) -> None:
    """Whether some cells have a label, and others are marked as having none by the right word."""
    check_names(adata.obs, labels)
    found, unlabeled = set(adata.obs[labels].astype(str)), str(NO_LABEL if no_label is None else no_label)
    if not found - {unlabeled}:
        raise ValueError(
            f".obs[{labels!r}] gives no cell a label: all are {unlabeled!r}. Leave labels_key and unlabeled_category "
            "out, or name another column."
        )
    if no_label is None:
        for name in sorted(name for name in found if name.lower() in NO_CLASS):
            warn(
                f"{name!r} in .obs[{labels!r}] counts as a class like any other; if it means that there is no label, "
                f"pass unlabeled_category={name!r}."
            )
    elif unlabeled not in found:
        names = {name.lower(): name for name in adata.obs[labels].unique().astype(str)}
        if alike := get_close_matches(unlabeled.lower(), names, 1, cutoff=0.8):
            raise ValueError(
                f"No cell has unlabeled_category={no_label!r} in .obs[{labels!r}]; did you mean {names[alike[0]]!r}? "
                "If all cells are labelled, leave it out."
            )
        warn(f"No cell has unlabeled_category={no_label!r} in .obs[{labels!r}]: all count as labelled.")
