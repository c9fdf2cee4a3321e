"""The held-out protocol: what is predicted has not been seen."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import settings
from scvi.utils import track

from mixvi.data import check_present
from mixvi.model._base import LatentModel
from mixvi.model._conditional import ConditionalMixin
from mixvi.perturb._arithmetic import fit_shift
from mixvi.perturb._baselines import BASELINES, fit_baseline
from mixvi.perturb._counterfactual import fit_counterfactual
from mixvi.perturb._evaluate import evaluate
from mixvi.perturb._predictor import Predictor, Treatment

MIN_CELLS = 20  # of a group in each condition: fewer say little about a mean


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
    """Hold the stimulated cells of each group out in turn, learn from the rest, predict them, and compare.

    A CVAE or GMVAE that ``setup`` conditions on ``condition_key`` predicts counterfactuals; any other model predicts by
    `fit_shift`. Baselines learn from the same cells.

    Parameters
    ----------
    model_class
        AE, VAE, CVAE or GMVAE.
    adata
        Cells in both conditions. It is not written to.
    condition_key, control, stimulated, cell_type_key
        As in `fit_shift`.
    hold_out_key
        Column of ``.obs`` whose groups are held out; ``None`` takes the cell types (a type never seen stimulated), a
        column of donors gives the cross-donor split (a person never seen stimulated).
    groups
        Which of them; ``None`` takes all with at least 20 cells in each condition.
    setup, model, train
        Arguments of ``setup_anndata``, of the model and of ``train``.
    baselines
        Names from ``BASELINES``.
    shift
        Further arguments of `fit_shift`.
    n_samples
        Predicted cells for each control cell, of models of counts: several make means less noisy.
    seed
        Of fits and draws.
    path
        A ``.csv``: results are kept there group by group, and groups for which it has the model's class and all
        baselines at this seed are not computed again. It does not know the settings: give others a file of their own.

    Returns
    -------
    The tables of `evaluate` of all groups, with the columns ``held_out`` and ``seed`` before.

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
    name, layer = model_class.__name__, (setup or {}).get("layer")
    tables = [] if path is None or not path.exists() else [pd.read_csv(path, dtype={"held_out": str})]
    there = {key for table in tables for key in zip(table["held_out"], table["seed"], table["prediction"], strict=True)}
    missing = [group for group in groups if not {(str(group), seed, one) for one in (name, *baselines)} <= there]
    for group in track(missing, description="held out"):
        inside = (adata.obs[hold_out_key] == group).to_numpy()
        treated = (adata.obs[condition_key] == stimulated).to_numpy()
        observed, before = adata[inside & treated], adata[inside & (adata.obs[condition_key] == control).to_numpy()]
        seen = adata[~(inside & treated)]
        seen = seen.to_memory() if adata.isbacked else seen.copy()
        with torch.random.fork_rng():
            fitted = _fit(model_class, seen, setup or {}, model or {}, train or {}, seed)
        predictors = {name: _predictor(fitted, treatment, shift or {})}
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


def _fit(model_class: type[LatentModel], seen: AnnData, setup, model, train, seed: int) -> LatentModel:
    before, states = settings.seed, (random.getstate(), np.random.get_state())
    settings.seed = seed
    try:
        model_class.setup_anndata(seen, **setup)
        fitted = model_class(seen, **model)
        fitted.train(**{"enable_progress_bar": False} | dict(train))
    finally:
        if before is not None:
            settings.seed = before
        random.setstate(states[0])
        np.random.set_state(states[1])
    return fitted


def _predictor(model: LatentModel, treatment: Treatment, shift: Mapping[str, Any]) -> Predictor:
    if treatment.condition_key in model.conditions and isinstance(model, ConditionalMixin):
        return fit_counterfactual(model, *treatment)
    return fit_shift(model, *treatment, **shift)


def _groups(obs: pd.DataFrame, treatment: Treatment, key: str, groups: Sequence[str] | None) -> list:
    check_present(obs, [key])
    cells = pd.crosstab(obs[key], obs[treatment.condition_key]).reindex(
        columns=[treatment.control, treatment.stimulated], fill_value=0
    )
    least = cells.min(axis=1)
    chosen = list(least.index[least >= MIN_CELLS]) if groups is None else list(groups)
    for group in chosen:
        if least.get(group, 0) < 2:
            raise ValueError(
                f"{group!r} has not two cells in each condition to compare; of {key!r} these have at least "
                f"{MIN_CELLS}: {list(least.index[least >= MIN_CELLS])}."
            )
    if not chosen:
        raise ValueError(f"No group of {key!r} has {MIN_CELLS} cells in each condition; name some in groups=.")
    return chosen
