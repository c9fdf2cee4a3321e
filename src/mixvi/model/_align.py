"""New cells with the genes of a model, in its order."""

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS

from mixvi.data import Aligned, align_genes, check_layer
from mixvi.model.registry import NO_LABEL

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def align(registry: dict[str, Any], adata: AnnData, gene_key: str | None) -> Aligned:
    """Match the genes of new cells with those of a model. Their labels become the unlabelled category.

    Parameters
    ----------
    registry
        Registry of the model.
    adata
        n cells x any genes; not changed.
    gene_key
        As in `LatentModel.map`.
    """
    args = registry["setup_args"]
    names = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    check_layer(adata, args["layer"], "the model needs this one")
    found = align_genes(adata, np.asarray(names), args["layer"], gene_key)
    if (label := args["labels_key"]) is not None:
        found.cells.obs[label] = NO_LABEL if args["unlabeled_category"] is None else args["unlabeled_category"]
    return found


def as_mapped(model: "LatentModel", adata: AnnData) -> AnnData:
    """New cells with the genes of a mapped model; those of another model as they are.

    Parameters
    ----------
    model
        Any model.
    adata
        n cells x any genes; not changed.

    Raises
    ------
    ValueError
        If they lack other genes than the cells for which the model was made.
    """
    if (expected := model.unseen_) is None:
        return adata
    cells, unseen = align(model.registry_, adata, model.gene_key_)
    if set(cells.var_names[unseen]) != set(expected):
        raise ValueError("These cells lack other genes than the query of this model. Map them with the reference.")
    return cells
