"""The registered columns of a model, from the registry of scvi-tools."""

from typing import Any

import numpy as np
from scvi import REGISTRY_KEYS

from mixvi.module.cells import Layout

NO_LABEL = "unlabeled"  # the category of cells without a label, where the user names none


def layout_of(registry: dict[str, Any]) -> Layout:
    """What is registered, for the module."""
    fields = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    has_batch, has_labels, has_size_factor = (
        registry["setup_args"][key] is not None for key in ("batch_key", "labels_key", "size_factor_key")
    )
    batches, classes = (
        fields[key]["categorical_mapping"] if is_used else []
        for key, is_used in ((REGISTRY_KEYS.BATCH_KEY, has_batch), (REGISTRY_KEYS.LABELS_KEY, has_labels))
    )
    return Layout(
        n_genes=fields[REGISTRY_KEYS.X_KEY]["n_vars"],
        batch_levels=len(batches),
        covariate_levels=tuple(fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])),
        n_continuous=len(fields.get(REGISTRY_KEYS.CONT_COVS_KEY, {}).get("columns", [])),
        n_labels=max(len(classes) - 1, 0),
        size_factor=has_size_factor,
    )


def conditions_of(registry: dict[str, Any]) -> list[tuple[str, np.ndarray | None]]:
    """What c is made of, in its order: columns of ``.obs`` with their categories, ``None`` for a continuous one."""
    fields = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    covariates, batch_key = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}), registry["setup_args"]["batch_key"]
    return [
        *([(batch_key, fields[REGISTRY_KEYS.BATCH_KEY]["categorical_mapping"])] if batch_key is not None else []),
        *((key, covariates["mappings"][key]) for key in covariates.get("field_keys", [])),
        *((key, None) for key in fields.get(REGISTRY_KEYS.CONT_COVS_KEY, {}).get("columns", [])),
    ]


def covariate_keys(registry: dict[str, Any]) -> list[str]:
    """Columns of ``.obs`` that the model reads of a cell, but for its label."""
    args = registry["setup_args"]
    single = [args[key] for key in ("batch_key", "size_factor_key") if args[key]]
    keys = [*single, *(args["categorical_covariate_keys"] or []), *(args["continuous_covariate_keys"] or [])]
    return list(dict.fromkeys(keys))
