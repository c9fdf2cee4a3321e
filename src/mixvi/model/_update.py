"""A model that grows: trained again with new cells, its clusters keep their names. A method of a GMVAE."""

import logging
from itertools import count
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS

from mixvi.cluster.correspondence import Change, correspondence
from mixvi.model._align import align
from mixvi.model._novelty import has_held_out
from mixvi.model._outliers import is_new
from mixvi.model.registration import check_trainable
from mixvi.model.registry import NO_LABEL
from mixvi.model.streaming import check_trained

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

logger = logging.getLogger(__name__)


def update(model: "GMVAE", adata: AnnData, gene_key: str | None = None, new_at: float = 0.1, **train: Any) -> "GMVAE":
    """Train a new model on the cells of this one and on new cells. This model does not change.

    Clusters that stay keep their names, others get new numbers. A cluster stays if most of its cells are in one new
    cluster, and are most of its cells. The new model finds its clusters itself, so it needs a named ``init``.

    Parameters
    ----------
    adata
        n new cells x any genes, at least those of the model; not changed. Columns and layer are as in `map`. Labels
        are not read.
    gene_key
        As in `map`.
    new_at
        False discovery rate at which new cells count as members of no earlier cluster, above 0 and below 1; see
        `get_outlier_p`.
    **train
        Arguments of `train`.

    Returns
    -------
    A model with the settings of this one. Its ``adata`` has the cells of both. Its ``changes_`` is a table with one row
    for each change: ``"kind"``, ``"before"`` and ``"after"``, names joined by ", ", and ``"cells"``, the number of
    cells after it. Kinds are ``"stays"``, ``"split"``, ``"merged"``, ``"rearranged"`` (several into several),
    ``"new"`` and ``"gone"``.

    Raises
    ------
    ValueError
        If genes of the model are missing, a cell has the name of a cell that the model knows, the model has no cells or
        was mapped, or its ``init`` was a partition.

    Examples
    --------
    >>> grown = model.update(query)
    >>> grown.changes_
    """
    check_trained(model)
    check_trainable(model)
    if isinstance(model._init, np.ndarray):
        raise ValueError(
            "The clusters of this model come from a partition of its cells (init), which has no new cells. Train a "
            "model with init='leiden', the default, and update that."
        )
    mapped = model.map(adata, gene_key)
    if mapped.unseen_:
        raise ValueError(
            f"{len(mapped.unseen_)} genes of the model are not in the new cells, such as {mapped.unseen_[0]!r}, so no "
            "model can be trained on both. Train a new model on the common genes."
        )
    if len(twice := model.adata.obs_names.intersection(mapped.adata.obs_names)):
        raise ValueError(
            f"{len(twice)} of the new cells have names that the model knows, such as {twice[0]!r}. Rename them, or "
            "leave out cells that the model was trained on."
        )
    earlier, names = np.r_[model.predict(), mapped.predict()].astype(str), model.cluster_names
    before = pd.Index(names).get_indexer(earlier)
    if has_held_out(model):
        before[model.adata.n_obs :][is_new(mapped.get_outlier_p(), new_at)] = -1
    grown = _on_both(model, mapped.adata)
    grown.train(**train)
    later = grown.cluster_names
    after = pd.Index(later).get_indexer(pd.Index(grown.predict().astype(str)))
    _name(grown, names, correspondence(before, after, len(names), len(later)), after)
    return grown


def _on_both(model: "GMVAE", new: AnnData) -> "GMVAE":
    """An untrained model for the cells of the model and new ones, which have the same genes."""
    args = dict(model.registry_["setup_args"])
    known, label = align(model.registry_, model.adata, None).cells, args["labels_key"]
    if label is not None:
        classes = model.registry_["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]["categorical_mapping"]
        known.obs[label] = classes[model.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY).ravel()]
        if args["unlabeled_category"] is None:
            args["unlabeled_category"] = NO_LABEL
    both = ad.concat([known, new], merge="same")
    type(model).setup_anndata(both, **args)
    return type(model)(both, **model.init_params_["non_kwargs"] | {"init": model._init})


def _name(grown: "GMVAE", names: list[str], changes: list[Change], after: np.ndarray) -> None:
    """Give the clusters of a model their names, and the model its table of changes.

    Parameters
    ----------
    grown
        Trained model; it is changed.
    names
        Names of the earlier clusters.
    changes
        Earlier clusters, by their place in ``names``, and later ones, by their place in ``grown.cluster_names``.
    after
        (n,) later cluster of each cell.
    """
    size = np.bincount(after, minlength=len(grown.cluster_names))
    stays = {change.after[0]: names[change.before[0]] for change in changes if change.kind == "stays"}
    numbers = [int(name) for name in names if name.isdecimal()]
    free = map(str, count(max(numbers, default=-1) + 1))
    if grown.clusters_ is not None:
        classes, later = grown._classes(), list(enumerate(grown.cluster_names))
        grown.rename_clusters({name: stays.get(k) or next(free) for k, name in later if name not in classes})
    found = [
        {
            "kind": change.kind,
            "before": ", ".join(names[k] for k in change.before),
            "after": ", ".join(grown.cluster_names[k] for k in change.after),
            "cells": int(size[change.after].sum()),
        }
        for change in changes
    ]
    grown.changes_ = pd.DataFrame(found)
    logger.info("Clusters after the update:\n%s", grown.changes_.to_string(index=False))
