"""Cells that come later: a model for a query, with other genes and new batches; methods of `LatentModel`."""

import copy
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from mixvi._checks import check_number, check_whole
from mixvi._upstream import replace_content
from mixvi.data import CellsDataset, minified_type, with_genes
from mixvi.model._align import align
from mixvi.model._arguments import device_of
from mixvi.model._rebuild import attributes_of, rebuild
from mixvi.model.registration import adopt, register, registered
from mixvi.model.streaming import check_trained, collect
from mixvi.module.query import Levels
from mixvi.train import fit_new_levels, nearest_levels

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

logger = logging.getLogger(__name__)

UNUSED = {  # arguments of `train` that a mapped model has no use for, with their defaults
    "train_size": None, "validation_size": None, "shuffle_set_split": True, "early_stopping": False,
    "data_path": "auto", "n_importance_samples": 1, "checkpoint_minutes": None,
}  # fmt: skip
OF_TRAINING = ("train_indices_", "validation_indices_", "test_indices_", "history_")


def map_cells(model: "LatentModel", adata: AnnData, gene_key: str | None = None) -> "LatentModel":
    """A model for new cells, the query. The reference model and its latent space do not change.

    Genes are matched by name. Genes that the query lacks are *unseen*: the model fills in their expected values.
    Further genes are left out.

    A new batch, or a new level of another categorical covariate, gets weights of its own (Lotfollahi 2022). For each
    gene, these are an effect that the encoder subtracts, and an intercept in the decoder. They start with the weights
    of the known level under which the cells are most probable. Then they are trained on the cells of the new level.
    Without new levels, nothing is trained. ``train()`` of the new model continues with these weights.

    Parameters
    ----------
    adata
        n query cells x any genes; not changed. Registered covariates must be in ``.obs``. A registered layer must be
        there. Labels are not read.
    gene_key
        Column of ``.var`` with the gene names that the model knows, such as Ensembl identifiers; ``None`` is
        ``.var_names``.

    Returns
    -------
    A model of the same class. Its ``adata`` has the query cells with the genes of the model; labels in it are replaced
    by the unlabelled category. Its methods take the query too.

    Raises
    ------
    ValueError
        If no gene matches, a gene occurs twice, or the values are of another kind than those of the training.
    KeyError
        If a layer or column is missing.

    Examples
    --------
    >>> mapped = model.map(query)
    >>> mapped.annotate(query)
    """
    check_trained(model)
    if not isinstance(adata, AnnData):
        raise TypeError(f"map() got a {type(adata).__name__} for cells; pass an AnnData.")
    if minified_type(adata) is not None:
        raise ValueError("The cells are minified; pass the AnnData from before minify_adata().")
    cells, unseen = align(model.registry_, adata, gene_key)
    rows = _rows_with_new_levels(model, cells)
    cls, args = type(model), model.registry_["setup_args"]
    manager = register(cls, cells, args, model.registry_, extend_categories=True)
    adopt(cls, manager)
    attributes = {name: value for name, value in attributes_of(model).items() if name not in OF_TRAINING}
    attributes = copy.deepcopy(attributes) | {"unseen_": cells.var_names[unseen].tolist(), "gene_key_": gene_key}
    mapped = rebuild(cls, cells, manager.registry, attributes)
    levels, state = Levels.between(model.module.layout, mapped.module.layout), model.module.state_dict()
    mapped.module.load_state_dict(levels.widen(state, mapped.module))
    mapped.to_device(model.device)
    if not levels.known.all():
        dataset = CellsDataset(manager, mapped.device, resident=False)
        levels = nearest_levels(mapped.module, dataset, rows, levels)
        mapped.module.load_state_dict(levels.widen(state, mapped.module))
        fit_new_levels(mapped.module, dataset, rows, levels.known)
    mapped.known_levels_ = levels.known.numpy()
    return mapped


def train_mapped(
    model: "LatentModel",
    max_epochs: int | None = None,
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    batch_size: int | None = None,
    plan_kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> None:
    """Train the weights of new levels further than `map` did. All other weights stay as they are, to the last bit.

    Parameters
    ----------
    model
        A mapped model.
    max_epochs
        Passes over the cells with a new level, at most 10,000 of them; ``None`` takes 400 steps.
    accelerator, devices, batch_size
        As in `train`.
    plan_kwargs
        Has ``lr``, the learning rate (0.01), or ``weight_decay=0``.
    **others
        Other arguments of `train`.

    Raises
    ------
    ValueError
        If the cells have no new level, or for any other argument.
    """
    settings = {"lr": 0.01, "weight_decay": 0.0} | (plan_kwargs or {})
    others.pop("enable_progress_bar", None)
    given = [name for name, value in others.items() if name not in UNUSED or value != UNUSED[name]]
    if given or settings.keys() - {"lr", "weight_decay"} or settings["weight_decay"] != 0:
        raise ValueError(
            f"A mapped model trains the weights of new levels only. It takes max_epochs, batch_size and "
            f"plan_kwargs={{'lr': ...}}, and not {given or plan_kwargs}."
        )
    check_whole("max_epochs", max_epochs, none="the default")
    check_whole("batch_size", batch_size, none="the default")
    check_number("lr", settings["lr"], above=0)
    known = model.known_levels_
    if known is None or known.all():
        raise ValueError(
            "A mapped model has the weights of its reference, and its cells have no new level, so there is nothing to "
            "train: use it as it is. To learn from its cells, call update() of the reference, if that is a GMVAE, or "
            f"train a new {type(model).__name__}."
        )
    registered(model, None)
    if minified_type(model.adata) is not None:
        raise ValueError("The cells of this mapped model are minified, and training needs their values. Map them anew.")
    model.to_device(device_of(accelerator, devices))
    rows = np.flatnonzero(collect(model, lambda cells: cells.c, minified=True)[:, ~known].any(1))
    dataset, size = CellsDataset(model.adata_manager, model.device, resident=False), batch_size or 128
    fit_new_levels(model.module, dataset, rows, torch.from_numpy(known), 0, max_epochs, size, settings["lr"])


def load_query_data(
    cls: type["LatentModel"],
    adata: AnnData,
    reference_model: "str | os.PathLike | LatentModel",
    accelerator: str = "auto",
    device: int | str = "auto",
) -> "LatentModel":
    """`map` under the name and arguments of scvi-tools.

    Parameters
    ----------
    adata
        As in `map`.
    reference_model
        The trained model, or the folder that it was saved in.
    accelerator, device
        Where the weights of a saved model go, as in `load`.

    Returns
    -------
    The model for the query.

    Raises
    ------
    ValueError
        If the reference is of another class, and as in `map`.
    """
    return _reference(cls, reference_model, accelerator=accelerator, device=device).map(adata)


def prepare_query_anndata(
    cls: type["LatentModel"],
    adata: AnnData,
    reference_model: "str | os.PathLike | LatentModel",
    return_reference_var_names: bool = False,
    inplace: bool = True,
) -> AnnData | pd.Index | None:
    """Give a query the genes of the reference, under the name and arguments of scvi-tools.

    Genes that the query lacks get zeros, which then count as measured. `load_query_data` and `map` match genes by
    themselves and know which ones are unseen. So pass them the query as it is.

    Parameters
    ----------
    adata
        n query cells; changed if ``inplace``.
    reference_model
        As in `load_query_data`.
    return_reference_var_names
        Return the names of the reference's genes, and do nothing else.
    inplace
        Change the query; ``False`` returns another AnnData.

    Raises
    ------
    ValueError
        As in `map`.
    """
    reference = _reference(cls, reference_model)
    names = pd.Index(reference.get_var_names())
    if return_reference_var_names:
        return names
    align(reference.registry_, adata, None)  # which says how many genes match
    cells = with_genes(adata, names)
    if not inplace:
        return cells
    replace_content(adata, cells)
    return None


def _rows_with_new_levels(model: "LatentModel", cells: AnnData) -> np.ndarray:
    """Row numbers (m,) of cells with a level that the model does not know."""
    if not model.conditions:
        logger.info(
            "The reference has no batch_key, so it knows no batches, and the batch of the query has no influence."
        )
    new = np.zeros(cells.n_obs, dtype=bool)
    for key, known in model.conditions.items():
        if known is None or key not in cells.obs:
            continue
        column = pd.Series(cells.obs[key])
        there = column[column.notna()]
        kinds = [pd.api.types.infer_dtype(np.asarray(values, dtype=object)) for values in (known, there)]
        if len(there) and kinds[0] != kinds[1]:
            raise ValueError(
                f".obs[{key!r}] of the query is {kinds[1]}, and that of the reference {kinds[0]}: it knows "
                f"{known.tolist()}. Convert the column of the query to the same kind."
            )
        new |= ~column.isin(known).to_numpy()
    return np.flatnonzero(new)


def _reference(cls: type["LatentModel"], model: "str | os.PathLike | LatentModel", **where) -> "LatentModel":
    if isinstance(model, str | os.PathLike):
        return cls.load(model, adata=False, **where)
    if type(model) is not cls:
        name = type(model).__name__
        raise ValueError(f"reference_model is a {name}, not a {cls.__name__}; call mixvi.{name}.load_query_data().")
    return model
