"""A model made again from its attributes: a saved one, or one for other cells."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from mixvi._upstream import give_cells, last_manager
from mixvi._warnings import warn
from mixvi.model.registry import conditions_of
from mixvi.model.values import settle_likelihood

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def attributes_of(model: "LatentModel") -> dict[str, Any]:
    """State of a model without its weights: the attributes whose names end with an underscore, as in scvi-tools."""
    return {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}


def rebuild(
    cls: type["LatentModel"], adata: AnnData | None, registry: dict[str, Any], attributes: dict[str, Any]
) -> "LatentModel":
    """A model with given attributes, and weights that are not yet loaded.

    Parameters
    ----------
    cls
        Its class.
    adata
        Its cells, registered; ``None`` for none.
    registry
        Registry of the cells, or of the model if there are none.
    attributes
        From `attributes_of`.
    """
    params = attributes["init_params_"]
    kwargs = {name: value for group in params["kwargs"].values() for name, value in group.items()}
    with torch.random.fork_rng(devices=[]):  # for the random weights that are replaced
        model = cls(adata, registry=registry, **params["non_kwargs"], **kwargs)
    for name in attributes.keys() - {"registry_", "init_params_"}:
        setattr(model, name, attributes[name])
    if model.unseen_:
        model.module.unseen = torch.from_numpy(np.isin(model.get_var_names().astype(str), model.unseen_))
    model.module.eval()
    return model


def attach(model: "LatentModel", adata: AnnData) -> None:
    """Give cells to a model that was made without, and check that it can describe them.

    Parameters
    ----------
    model
        From `rebuild`.
    adata
        Its cells; they are set up for its class with its registry.

    Raises
    ------
    ValueError
        If its likelihood cannot describe them.
    """
    give_cells(model, last_manager(type(model), adata))
    model._seen = None  # what `check_unchanged` compares with
    settle_likelihood(model, model.likelihood_)
    model._see_cells()


def follow_cells(model: "LatentModel") -> None:
    """Let a model that is not trained yet take its AnnData as it is, if cells of it were dropped since.

    Parameters
    ----------
    model
        Of any class. One that is trained keeps to the cells that it knows.

    Raises
    ------
    ValueError
        If its likelihood cannot describe the cells that are left.
    """
    seen, registry = getattr(model.adata_manager, "seen", None), model.registry_
    if model.is_trained_ or seen is None or not 0 < model.adata.n_obs < seen.n_cells:
        return
    if any(key not in model.adata.obs for key in seen.columns):  # the check that follows refuses the cells
        return
    type(model).setup_anndata(model.adata, source_registry=registry, **registry["setup_args"])
    empty = {
        key: np.setdiff1d(levels, model.adata.obs[key].unique()).tolist()
        for key, levels in conditions_of(registry)
        if levels is not None
    }
    empty = {key: levels for key, levels in empty.items() if levels}
    warn(
        f"{seen.n_cells - model.adata.n_obs:,} of {seen.n_cells:,} cells were dropped from the AnnData after "
        f"setup_anndata. The model trains on those that are left{f', and none is of {empty}' if empty else ''}."
    )
    attach(model, model.adata)
