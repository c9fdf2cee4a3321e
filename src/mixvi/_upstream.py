"""Workarounds for functions that other packages do not make public, each with the version that needs it."""

import weakref
from typing import Any

from anndata import AnnData
from lightning.pytorch import Trainer
from scvi.data import AnnDataManager
from scvi.model.base import BaseModelClass

# Key of .uns that marks minified cells. scvi-tools 1.5 has it in a private module only, and models look for it there.
MINIFY_TYPE = "_scvi_adata_minify_type"


def restart_epoch(checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint that was taken at the start of an epoch begin this epoch.

    Lightning 2.6 still counts the batches of the epoch before in it, and would leave the epoch out.
    """
    counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    counts |= {"current": dict.fromkeys(counts["current"], 0), "is_last_batch": False}


def step_progress(trainer: Trainer) -> Any:
    """What counts the steps of the optimizer, for steps that Lightning does not see.

    Lightning 2.6 has only a method that takes a step and counts it. ``trainer.global_step`` reads this count.
    """
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress


def forget_with_cells(cls: type[BaseModelClass], manager: AnnDataManager) -> None:
    """Make a model class forget a manager when its AnnData is deleted.

    scvi-tools 1.5 keeps it for ever: ``deregister_manager`` is a method of models, and removes other managers too.

    Parameters
    ----------
    cls
        Class that the manager is registered with.
    manager
        Holds its AnnData weakly.
    """
    weakref.finalize(manager.adata, _forget, cls._setup_adata_manager_store, manager.adata_uuid, manager.id)


def forget_with_model(model: BaseModelClass) -> None:
    """Make the class of a model forget the managers of this model when it is deleted; see `forget_with_cells`."""
    weakref.finalize(model, model._per_instance_manager_store.pop, model.id, None)


def last_manager(cls: type[BaseModelClass], adata: AnnData) -> AnnDataManager | None:
    """Manager of the last ``setup_anndata`` of an AnnData. scvi-tools 1.5 has a private method for it only.

    Parameters
    ----------
    cls
        Class that it was set up for.
    adata
        Cells.
    """
    return cls._get_most_recent_anndata_manager(adata)


def give_cells(model: BaseModelClass, manager: AnnDataManager) -> None:
    """Make the AnnData of a manager that of a model. scvi-tools 1.5 registers a manager by a private method only.

    Parameters
    ----------
    model
        Of the class that the AnnData was set up for.
    manager
        Manager of the AnnData.
    """
    model._register_manager_for_instance(manager)
    model.adata = manager.adata


def _forget(store: dict[str, AnnDataManager], adata_uuid: str, manager_id: str) -> None:
    if adata_uuid in store and store[adata_uuid].id == manager_id:  # a copy of the AnnData may have taken its place
        del store[adata_uuid]


def replace_content(adata: AnnData, new: AnnData) -> None:
    """Give an AnnData the content of another one. anndata 0.12 has no public way to change the number of genes.

    Parameters
    ----------
    adata
        Is changed.
    new
        Has the content.
    """
    adata._init_as_actual(new)
