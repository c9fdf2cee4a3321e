"""Cells that come later: a model for a query, with other genes and new batches; methods of `LatentModel`."""

import copy
import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from mixvi.data import CellsDataset
from mixvi.model._align import align
from mixvi.model.registration import register
from mixvi.model.streaming import check_trained
from mixvi.module.query import Levels
from mixvi.train import fit_intercepts, nearest_levels

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

OF_TRAINING = ("registry_", "init_params_", "train_indices_", "validation_indices_", "test_indices_", "history_")


def map_cells(model: "LatentModel", adata: AnnData, gene_key: str | None = None) -> "LatentModel":
    """A model for new cells, the query. The reference model and its latent space do not change.

    Genes are matched by name. Genes that the query lacks are *unseen*: the model fills in what it expects of them.
    Further genes are left out. A new batch, or a new level of another categorical covariate, is encoded like the known
    one under which its cells are the most probable. In the decoder it gets an intercept of its own, so that the
    expected mean of its cells is the observed one. Nothing is trained.

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
    cells, unseen = align(model.registry_, adata, gene_key)
    cls, args = type(model), model.registry_["setup_args"]
    manager = register(cls, cells, args, model.registry_, extend_categories=True)
    cls.register_manager(manager)
    groups = model.init_params_["kwargs"].values()
    kwargs = {name: value for group in groups for name, value in group.items()}
    mapped = cls(cells, registry=manager.registry, **model.init_params_["non_kwargs"], **kwargs)
    for name, value in vars(model).items():
        if name.endswith("_") and not name.startswith("_") and name not in OF_TRAINING:
            setattr(mapped, name, copy.deepcopy(value))
    mapped.unseen_, mapped.gene_key_ = cells.var_names[unseen].tolist(), gene_key
    levels = Levels.between(model.module.layout, mapped.module.layout)
    state = model.module.state_dict()
    mapped.module.load_state_dict(levels.widen(state, mapped.module))
    mapped.to_device(model.device)
    prepare(mapped)
    if not levels.known.all():
        dataset = CellsDataset(manager, mapped.device, resident=False)
        levels = nearest_levels(mapped.module, dataset, cells.n_obs, levels)
        mapped.module.load_state_dict(levels.widen(state, mapped.module))
        fit_intercepts(mapped.module, dataset, cells.n_obs, levels)
    return mapped


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
    """Check that a query has genes of the reference, under the name and arguments of scvi-tools.

    `load_query_data` and `map` match genes by themselves, so this need not be called.

    Parameters
    ----------
    adata
        n query cells; not changed.
    reference_model
        As in `load_query_data`.
    return_reference_var_names
        Return the names of the reference's genes.
    inplace
        ``False`` returns cells with the genes of the reference, with zeros in those that the query lacks.

    Raises
    ------
    ValueError
        As in `map`.
    """
    reference = _reference(cls, reference_model)
    names = pd.Index(reference.get_var_names())
    if return_reference_var_names:
        return names
    cells = align(reference.registry_, adata, None).cells
    return None if inplace else cells


def prepare(model: "LatentModel") -> None:
    """Tell the module of a mapped model which genes are unseen.

    Parameters
    ----------
    model
        Mapped or not.
    """
    model.module.eval()
    if unseen := model.unseen_:
        model.module.unseen = torch.from_numpy(np.isin(model.get_var_names().astype(str), unseen))


def _reference(cls: type["LatentModel"], model: "str | os.PathLike | LatentModel", **where) -> "LatentModel":
    if isinstance(model, str | os.PathLike):
        return cls.load(model, adata=False, **where)
    if type(model) is not cls:
        name = type(model).__name__
        raise ValueError(f"reference_model is a {name}, not a {cls.__name__}; call mixvi.{name}.load_query_data().")
    return model
