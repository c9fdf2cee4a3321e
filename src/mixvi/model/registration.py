"""Registration of an AnnData: where its values and columns are, and checks that a model can describe them."""

import logging
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from pandas import CategoricalDtype
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    BaseAnnDataField,
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)

from mixvi._tell import quiet
from mixvi._upstream import forget_with_cells
from mixvi._warnings import warn
from mixvi.data import (
    CellsManager,
    LabelsField,
    UnusedField,
    check_columns,
    check_dtype,
    check_layer,
    check_levels,
    check_names,
    check_present,
    check_support,
    file_names,
    has_values,
    is_writable,
    minified_fields,
    minified_type,
    stand_in,
)
from mixvi.model._align import as_mapped
from mixvi.model.registry import NO_LABEL, conditions_of
from mixvi.model.unchanged import check_unchanged, look_at, values_of
from mixvi.model.values import describe_values
from mixvi.module.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

logger = logging.getLogger(__name__)

NO_CLASS = ("unknown", "unlabelled", "unassigned", "undefined", "none", "nan", "na", "n/a", "?", "")  # other such names


def register(
    cls: type["LatentModel"],
    adata: AnnData,
    setup_args: dict[str, Any],
    source_registry: dict | None = None,
    extend_categories: bool = False,
) -> CellsManager:
    """Check the arguments of ``setup_anndata`` and register the AnnData.

    Parameters
    ----------
    cls
        Class of the model.
    adata
        Cells.
    setup_args
        Arguments of ``setup_anndata`` by name.
    source_registry
        Registry of a saved model, or of the model that the cells are given to.
    extend_categories
        Whether new levels of categorical covariates are allowed; they follow the known ones.

    Raises
    ------
    ValueError
        If the model would ignore an argument, values are missing or impossible, or a new model would get minified
        cells.
    KeyError
        If a layer or column does not exist.
    """
    for key in ("categorical_covariate_keys", "continuous_covariate_keys"):
        if isinstance(setup_args[key], str | int | float):
            raise ValueError(f"{key}={setup_args[key]!r} is one name; pass a list, [{setup_args[key]!r}].")
        if (keys := setup_args[key]) is not None:  # a list is what any file can hold
            setup_args[key] = sorted(keys) if isinstance(keys, set | frozenset) else list(keys)
    for argument, other in cls._ignores.items():
        if setup_args[argument] not in (None, []):
            raise ValueError(
                f"{cls.__name__} got {argument}={setup_args[argument]!r}, which it would ignore; "
                f"use mixvi.{other}, or leave {argument} out."
            )
    if source_registry is None and minified_type(adata) is not None:
        raise ValueError(
            "The AnnData is minified, so it belongs to the model that minified it; load that one with "
            f"{cls.__name__}.load(). For a new model, pass the AnnData from before minify_adata()."
        )
    _check_cells(adata, setup_args, is_new=source_registry is not None)
    if source_registry is not None and not extend_categories:
        known = {key: levels for key, levels in conditions_of(source_registry) if levels is not None}
        check_levels(adata.obs, known)
    fields = [*_fields(setup_args), *minified_fields(adata)]
    manager = CellsManager(fields, cls._get_setup_method_args(cls=cls, adata=adata, **setup_args))
    with quiet("scvi"):  # which announces names of columns for the posterior of minified cells
        manager.register_fields(adata, source_registry, **({"extend_categories": True} if extend_categories else {}))
    return manager


def adopt(cls: type["LatentModel"], manager: CellsManager) -> None:
    """Let a class know a manager for as long as its AnnData lives.

    Parameters
    ----------
    cls
        Class of the model.
    manager
        From `register`.
    """
    cls.register_manager(manager)
    manager.hold_weakly()
    manager.seen = look_at(manager.adata, manager.registry["setup_args"])
    forget_with_cells(cls, manager)


def _check_cells(adata: AnnData, setup_args: dict[str, Any], is_new: bool) -> None:
    """Check the values and columns of cells; those that are new to a model need no labels."""
    layer, labels, no_label, size_factor = (
        setup_args[key] for key in ("layer", "labels_key", "unlabeled_category", "size_factor_key")
    )
    categorical = [setup_args["batch_key"], *(setup_args["categorical_covariate_keys"] or [])]
    categorical = [key for key in categorical if key is not None]
    if no_label is not None and labels is None:
        raise ValueError(f"unlabeled_category={no_label!r} needs labels_key, the column that holds it.")
    check_layer(adata, layer)
    check_dtype(*values_of(adata, layer))
    check_columns(adata.obs, categorical)
    if not is_new:
        _warn_of_empty_levels(adata, categorical)
    if labels is not None and not is_new:
        advice = "give cells without a label one category of their own and name it as unlabeled_category"
        check_columns(adata.obs, [labels], advice=advice, texts=False)
        _check_labels(adata, labels, no_label)
    elif labels in adata.obs:  # of new cells: `LabelsField` takes what the model does not know as unlabelled
        check_present(adata.obs, [labels], texts=False)
    check_columns(adata.obs, setup_args["continuous_covariate_keys"] or [], numeric=True)
    if not is_new:
        _check_covariates(setup_args)
    check_columns(adata.obs, [] if size_factor is None else [size_factor], numeric=True, positive=True)


def _fields(setup_args: dict[str, Any]) -> list[BaseAnnDataField]:
    """What scvi-tools is to register."""
    layer, batch, labels, no_label, size_factor, categorical, continuous = (
        setup_args[key]
        for key in (
            "layer", "batch_key", "labels_key", "unlabeled_category", "size_factor_key",
            "categorical_covariate_keys", "continuous_covariate_keys",
        )
    )  # fmt: skip
    no_label = NO_LABEL if no_label is None else no_label
    batches, classes = REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY
    return [  # those of SCVI, as other tools of scvi-tools look for them; without a name they are empty
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False),
        UnusedField(batches) if batch is None else CategoricalObsField(batches, batch),
        UnusedField(classes) if labels is None else LabelsField(classes, labels, no_label),
        NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor, required=False),
        CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical),
        NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous),
    ]


def registered(model: "LatentModel", adata: AnnData | None, minified: bool = False) -> CellsManager:
    """Manager of the model's own AnnData or of new cells.

    Parameters
    ----------
    model
        The model.
    adata
        New cells, which are not changed; ``None`` is the model's own AnnData.
    minified
        Whether cells will do that have a stored posterior, and no values.

    Raises
    ------
    ValueError
        If the model has no AnnData, or its AnnData was changed; if it cannot describe the new cells; if they are
        minified, and their values are needed.
    """
    if adata is None and model.adata is None:
        raise ValueError(f"This {type(model).__name__} was loaded without data; pass adata=.")
    if not minified:
        _check_values(model.adata if adata is None else adata)
    if adata is None or adata is model.adata:
        check_unchanged(model)
        model._validate_anndata(model.adata)
        return model.adata_manager
    if not isinstance(adata, AnnData):
        raise TypeError(f"{type(model).__name__} got a {type(adata).__name__} for cells; pass an AnnData.")
    if minified_type(adata) is not None and model.minified_data_type is None:
        raise ValueError(
            f"The cells are minified, and the AnnData of this {type(model).__name__} is not; pass their values."
        )
    args = model.registry_["setup_args"]
    cells = stand_in(as_mapped(model, adata), model.get_var_names(), args, NO_LABEL)
    manager = register(type(model), cells, args, model.registry_)
    if has_values(cells):
        support = describe_values(model.registry_, manager)
        check_support(support, model.likelihood_, LIKELIHOODS[model.likelihood_].support)
    return manager


def check_trainable(model: "LatentModel") -> None:
    """Raise if the cells of a model are not there to train on, or are minified or mapped.

    Raises
    ------
    ValueError
        As in `registered`; or if the cells are minified, and so would keep the posterior from before; or if the model
        is mapped.
    """
    registered(model, None)
    if model.unseen_ is not None:
        raise ValueError(
            "A mapped model has the weights of its reference and needs no training: use it as it is. To learn from its "
            f"cells, call update() of the reference, if that is a GMVAE, or train a new {type(model).__name__}."
        )
    if minified_type(model.adata) is not None:
        raise ValueError(
            "Minified cells store a posterior, which training would not change. Load the model with the AnnData from "
            "before minify_adata(), and train that."
        )


def _check_values(adata: AnnData) -> None:
    if isinstance(adata, AnnData) and not has_values(adata):
        raise ValueError(
            "This needs the values of the cells, and minify_adata() has replaced them by the posterior. Load the model "
            "with the AnnData from before, or keep the values: "
            "minify_adata('latent_posterior_parameters_with_counts')."
        )


def _check_covariates(setup_args: dict[str, Any]) -> None:
    """Raise for covariates whose table scvi-tools cannot make, or cannot write."""
    for argument in ("categorical_covariate_keys", "continuous_covariate_keys"):
        keys = setup_args[argument] or []
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{argument} has {twice[0]!r} twice; name each column once.")
        if other := [key for key in keys if not is_writable(key)]:
            raise ValueError(
                f"{argument} has {other[0]!r}, and files cannot hold a column of this name. Rename it, for example "
                f"adata.obs = adata.obs.rename(columns={{{other[0]!r}: {file_names(other)[0]!r}}})."
            )


def _warn_of_empty_levels(adata: AnnData, keys: list[str]) -> None:
    for key in keys:
        column = adata.obs[key]
        if isinstance(column.dtype, CategoricalDtype) and len(
            empty := sorted(set(column.cat.categories) - set(column))
        ):
            warn(
                f".obs[{key!r}] has categories without cells, {empty}. The model knows them, but cannot learn them. To "
                f"drop them: adata.obs[{key!r}] = adata.obs[{key!r}].cat.remove_unused_categories()."
            )


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
        equal = [value for value in adata.obs[labels].unique() if value == no_label]  # -1.0 for -1
        if equal:
            raise ValueError(f"No cell has unlabeled_category={no_label!r}; pass {equal[0]!r}, as in .obs[{labels!r}].")
        names = {name.lower(): name for name in map(str, adata.obs[labels].unique())}
        if alike := get_close_matches(unlabeled.lower(), names, 1, cutoff=0.8):
            raise ValueError(
                f"No cell has unlabeled_category={no_label!r} in .obs[{labels!r}]; did you mean {names[alike[0]]!r}? "
                "If all cells are labelled, leave it out."
            )
        warn(f"No cell has unlabeled_category={no_label!r} in .obs[{labels!r}]: all count as labelled.")
