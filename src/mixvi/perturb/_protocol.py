"""The held-out protocol: the cells that are predicted take no part in training."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import settings
from scvi.utils import track

from mixvi._tell import untold
from mixvi.data import check_present
from mixvi.model._base import LatentModel
from mixvi.model._conditional import ConditionalMixin
from mixvi.perturb._arithmetic import fit_shift
from mixvi.perturb._baselines import BASELINES, fit_baseline
from mixvi.perturb._counterfactual import fit_counterfactual
from mixvi.perturb._evaluate import evaluate
from mixvi.perturb._predictor import Predictor, Treatment

MIN_OF_GROUP = 20  # of a group in each condition; the mean of fewer cells is mostly noise


def leave_one_out(
    model_class: type[LatentModel],
    adata: AnnData,
    condition_key: str,
    control: str,
    stimulated: str,
    cell_type_key: str,
    *,
    hold_out_key: str | None = None,
    groups: Sequence[str] | None = None,
    setup: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    baselines: Sequence[str] = tuple(BASELINES),
    shift: Mapping[str, Any] | None = None,
    n_samples: int = 10,
    seed: int = 0,
    path: Path | str | None = None,
) -> pd.DataFrame:
    """Leave out the stimulated cells of one group, train on the rest, predict them, and compare; for each group.

    A CVAE or GMVAE that ``setup`` conditions on ``condition_key`` predicts counterfactuals. Any other model predicts
    with `fit_shift`. Baselines learn from the same cells.

    Parameters
    ----------
    model_class
        AE, VAE, CVAE or GMVAE.
    adata
        Cells in both conditions. It is not written to.
    condition_key
        Column of ``.obs`` with the condition.
    control, stimulated
        Its two values.
    cell_type_key
        Column of ``.obs`` with the type of each cell.
    hold_out_key
        Column of ``.obs`` with the groups to leave out. ``None`` takes the cell types: the model has then never seen
        the cell type stimulated. With a column of donors, it has never seen the donor's stimulated cells.
    groups
        Groups to leave out; ``None`` takes all with at least 20 cells in each condition.
    setup
        Arguments of ``setup_anndata``.
    model
        Arguments of the model.
    train
        Arguments of ``train``.
    baselines
        Names from ``BASELINES``.
    shift
        Further arguments of `fit_shift`.
    n_samples
        Number of cells to predict for each control cell, by models of counts. More make means less noisy.
    seed
        Of training, predictions and bootstrap.
    path
        A ``.csv`` file. After each group, its results are appended. A group is skipped if the file has results of the
        model's class and of all baselines at this seed. The file does not record settings, so use one file for each
        choice of settings.

    Returns
    -------
    The tables of `evaluate` of all groups, below each other, after the columns ``held_out`` and ``seed``.

    Raises
    ------
    ValueError
        If a group is not known or has fewer than two cells in a condition, or no group is left.
    KeyError
        If a column does not exist.
    """
    treatment = Treatment(condition_key, control, stimulated, cell_type_key)
    treatment.check(adata.obs, both=True)
    hold_out_key = hold_out_key or cell_type_key
    groups = _groups(adata.obs, treatment, hold_out_key, groups)
    path = None if path is None else Path(path)
    tables = [] if path is None or not path.exists() else [pd.read_csv(path, dtype={"held_out": str})]
    layer = (setup or {}).get("layer")
    for group in _missing(tables, groups, seed, (model_class.__name__, *baselines)):
        observed, before, seen = _split(adata, treatment, hold_out_key, group)
        with torch.random.fork_rng(), untold():
            fitted = _fit(model_class, seen, setup or {}, model or {}, train or {}, seed)
        predictors = {model_class.__name__: _predictor(fitted, treatment, shift or {})}
        predictors |= {name: fit_baseline(name, seen, *treatment, layer=layer) for name in baselines}
        predictions = {name: one.predict(before, None, n_samples, seed) for name, one in predictors.items()}
        table = evaluate(predictions, observed, before, layer, seed=seed)
        table.insert(0, "held_out", str(group))
        table.insert(1, "seed", seed)
        tables.append(table)
        if path is not None:
            table.to_csv(path, mode="a", header=not path.exists(), index=False)
    whole = pd.concat(tables, ignore_index=True)
    return whole.drop_duplicates([column for column in whole if column not in ("value", "low", "high")], keep="last")


def _missing(tables: Sequence[pd.DataFrame], groups: list, seed: int, names: Sequence[str]) -> Iterable:
    """Groups without results of all these predictors at this seed, with a progress bar."""
    there = {key for table in tables for key in zip(table["held_out"], table["seed"], table["prediction"], strict=True)}
    missing = [group for group in groups if not {(str(group), seed, name) for name in names} <= there]
    return track(missing, description="held out")


def _split(adata: AnnData, treatment: Treatment, key: str, group) -> tuple[AnnData, AnnData, AnnData]:
    """The stimulated cells of a group, its control cells, and all cells but the former, in memory."""
    inside = (adata.obs[key] == group).to_numpy()
    is_stimulated, is_control = (
        (adata.obs[treatment.condition_key] == value).to_numpy() for value in (treatment.stimulated, treatment.control)
    )
    seen = adata[~(inside & is_stimulated)]
    return (
        adata[inside & is_stimulated],
        adata[inside & is_control],
        seen.to_memory() if adata.isbacked else seen.copy(),
    )


def _fit(
    model_class: type[LatentModel],
    seen: AnnData,
    setup: Mapping[str, Any],
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    seed: int,
) -> LatentModel:
    """Train a model from a seed, and restore the global random states."""
    before, states = settings.seed, (random.getstate(), np.random.get_state())
    settings.seed = seed
    try:
        model_class.setup_anndata(seen, **setup)
        fitted = model_class(seen, **model)
        options: dict[str, Any] = {"enable_progress_bar": False, **train}
        fitted.train(**options)
    finally:
        if before is not None:
            settings.seed = before
        random.setstate(states[0])
        np.random.set_state(states[1])
    return fitted


def _predictor(model: LatentModel, treatment: Treatment, shift: Mapping[str, Any]) -> Predictor:
    """The predictor of a trained model: counterfactual if it is conditioned on the treatment, else a shift."""
    if treatment.condition_key in model.conditions and isinstance(model, ConditionalMixin):
        return fit_counterfactual(model, *treatment)
    return fit_shift(model, *treatment, **shift)


def _groups(obs: pd.DataFrame, treatment: Treatment, key: str, groups: Sequence[str] | None) -> list:
    """Groups to leave out, checked to have cells in both conditions."""
    check_present(obs, [key])
    cells = pd.crosstab(obs[key], obs[treatment.condition_key]).reindex(
        columns=[treatment.control, treatment.stimulated], fill_value=0
    )
    least = cells.min(axis=1)
    chosen = list(least.index[least >= MIN_OF_GROUP]) if groups is None else list(groups)
    for group in chosen:
        if least.get(group, 0) < 2:
            raise ValueError(
                f"{group!r} needs at least two cells in each condition. Groups of {key!r} with at least {MIN_OF_GROUP} "
                f"in each are {list(least.index[least >= MIN_OF_GROUP])}."
            )
    if not chosen:
        raise ValueError(f"No group of {key!r} has {MIN_OF_GROUP} cells in each condition; name some in groups=.")
    return chosen
