"""Latent arithmetic: a condition is a direction in the latent space (Lotfollahi 2019, scGen)."""

from collections.abc import Mapping
from typing import override

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.linear_model import Ridge

from mixvi.data import check_present, own_columns
from mixvi.model._base import LatentModel
from mixvi.model.registration import registered
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense
from mixvi.ops.quantile_map import carry
from mixvi.perturb._predictor import Predictor, Treatment, check_scale, draws, log_normalize

PENALTY = 10.0  # of the ridge regression, beside the squared error summed over control cells


class Shift(Predictor):
    """A step in the latent space that takes control cells to stimulated cells. `fit_shift` learns it.

    To predict, each control cell is encoded to the mean z of q(z | x, c), moved by the step, and decoded.

    A model of counts moves each count of the cell from p(x | z, c) to the same quantile of p(x | z + delta, c). So
    predicted cells keep the spread and the zeros of real cells; with a step of 0 they are the control cells. Other
    models give the mean of p(x | z + delta, c). ``.obsm["X_mixvi"]`` of predictions is z + delta (m, d).

    Attributes
    ----------
    delta
        (d,) the step.
    by_type
        Cell type: (d,), the step of that type alone. Similar steps mean that cell types respond alike.
    local
        Ridge regression that gives each cell its own step from its z; ``None`` if all cells take ``delta``.
    """

    def __init__(
        self,
        model: LatentModel,
        treatment: Treatment,
        delta: np.ndarray,
        by_type: Mapping[str, np.ndarray],
        local: Ridge | None = None,
    ):
        self.model, self.treatment, self.delta, self.by_type = model, treatment, delta, dict(by_type)
        self.local = local

    @override
    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        rows = np.repeat(self.treatment.control_rows(adata.obs, cell_type), n_samples if draws(self.model) else 1)
        step = self.delta
        if self.local is not None:
            step = self.local.predict(self.model.get_latent_representation(adata, rows))
        return self._answer(**decoded(self.model, adata, rows, step, seed), adata=adata, rows=rows)


def fit_shift(
    model: LatentModel,
    condition_key: str,
    control: str,
    stimulated: str,
    cell_type_key: str,
    balance: bool = True,
    local: bool = False,
) -> Shift:
    """Learn the step from control to stimulated cells in the latent space of a trained model.

    It is learned from the model's own cells, of cell types that have at least 10 cells in both conditions. The step is
    the mean z of stimulated cells minus the mean z of control cells. With ``balance`` it is computed in each cell type
    and then averaged over cell types. The paper samples equally many cells of each type; that has the same expectation
    and adds sampling noise.

    Parameters
    ----------
    model
        A trained AE, VAE, CVAE or GMVAE that is *not* conditioned on ``condition_key``: its latent space must contain
        the effect. With a linear AE, the prediction is that of vector arithmetic on principal components.
    condition_key
        Column of ``.obs`` with the condition.
    control, stimulated
        Its two values.
    cell_type_key
        Column of ``.obs`` with the type of each cell.
    balance
        Whether each cell type has the same weight, whatever its number of cells.
    local
        Let the step depend on z: ridge regression of the step of a cell's type on its z, learned from control cells.
        A cell type then moves as the cell types near it do. A strong penalty would give the same step to all cells.

    Returns
    -------
    `Shift`, whose ``predict`` moves control cells.

    Raises
    ------
    ValueError
        If no cell type has enough cells in both conditions, or the model is conditioned on ``condition_key``.
    KeyError
        If a column does not exist.

    References
    ----------
    Lotfollahi, Wolf and Theis 2019, scGen predicts single-cell perturbation responses, Nat Methods.
    """
    if condition_key in model.conditions:
        raise ValueError(
            f"The {type(model).__name__} is conditioned on {condition_key!r}, so its latent space does not contain the "
            "effect. Use mixvi.perturb.fit_counterfactual, or a model that is not conditioned on it."
        )
    check_scale(model)
    registered(model, None, minified=True)
    treatment = Treatment(condition_key, control, stimulated, cell_type_key)
    treatment.check(model.adata.obs, both=True)
    z = model.get_latent_representation()
    delta, by_type = _steps(z, model.adata.obs, treatment, balance)
    ridge = _local_steps(z, model.adata.obs, treatment, by_type, balance) if local else None
    return Shift(model, treatment, delta, by_type, ridge)


def _steps(
    z: np.ndarray, obs: pd.DataFrame, treatment: Treatment, balance: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The step (d,) of all cells z (n, d), and that of each cell type."""
    cell_type, condition = obs[treatment.cell_type_key].to_numpy(), obs[treatment.condition_key].to_numpy()
    is_stimulated, is_control = condition == treatment.stimulated, condition == treatment.control
    types = treatment.types(obs)

    def step(cells: np.ndarray) -> np.ndarray:
        return z[cells & is_stimulated].mean(0) - z[cells & is_control].mean(0)

    by_type = {name: step(cell_type == name) for name in types}
    return np.mean(list(by_type.values()), axis=0) if balance else step(np.isin(cell_type, types)), by_type


def _local_steps(
    z: np.ndarray, obs: pd.DataFrame, treatment: Treatment, by_type: Mapping[str, np.ndarray], balance: bool
) -> Ridge:
    """Ridge regression of the step (d,) of a cell's type on its z (d,), fitted to the control cells."""
    cell_type = obs[treatment.cell_type_key].to_numpy()
    is_control = (obs[treatment.condition_key] == treatment.control).to_numpy()
    rows = np.flatnonzero(np.isin(cell_type, list(by_type)) & is_control)
    _, which, size = np.unique(cell_type[rows].astype(str), return_inverse=True, return_counts=True)
    weight = len(rows) / len(size) / size[which] if balance else None
    own = np.stack([by_type[name] for name in cell_type[rows]])
    return Ridge(PENALTY).fit(z[rows], own, weight)


def remove_batch(model: LatentModel, batch_key: str, cell_type_key: str) -> AnnData:
    """Remove batch effects by latent arithmetic.

    In each cell type, every batch is moved so that its mean z equals that of the largest batch. Then z is decoded.

    Parameters
    ----------
    model
        A trained model that is not conditioned on the batch.
    batch_key
        Column of ``.obs`` with the batch.
    cell_type_key
        Column of ``.obs`` with the type of each cell. A cell type that only one batch has is not moved.

    Returns
    -------
    One row for each of the model's n cells: ``.X`` (n, g) is the mean of p(x | z) at the corrected z, and
    ``.obsm["X_mixvi"]`` (n, d) the corrected z. ``.obs`` and ``.var`` are copied.

    Raises
    ------
    ValueError
        If the model is conditioned on the batch. Use ``get_reconstruction(transform_batch=)`` then.
    KeyError
        If a column does not exist.

    References
    ----------
    Lotfollahi 2019, section "Removing batch effects".
    """
    if batch_key in model.conditions:
        raise ValueError(
            f"The {type(model).__name__} is conditioned on {batch_key!r}, so its latent space does not contain the "
            "batch. Call model.get_reconstruction(transform_batch=) for values without the batch effect."
        )
    registered(model, None, minified=True)
    obs = model.adata.obs
    check_present(obs, [batch_key, cell_type_key])
    step = _to_largest_batch(model.get_latent_representation(), obs, batch_key, cell_type_key)
    rows = np.arange(len(step))
    found = decoded(model, model.adata, rows, step, give_mean=True)
    corrected = AnnData(found["x"], obs=own_columns(model.adata, rows), var=model.adata.var.copy())
    corrected.obsm["X_mixvi"] = found["X_mixvi"]
    return corrected


def _to_largest_batch(z: np.ndarray, obs: pd.DataFrame, batch_key: str, cell_type_key: str) -> np.ndarray:
    """The step (n, d) that moves the mean z of each batch to that of the largest batch, in each cell type."""
    step = np.zeros_like(z)
    for cells in obs.groupby(cell_type_key, observed=True).indices.values():
        rows = obs.iloc[cells].groupby(batch_key, observed=True).indices
        batches = [cells[inside] for inside in rows.values()]
        largest = max(batches, key=len)
        for own in batches:
            step[own] = z[largest].mean(0) - z[own].mean(0)
    return step


def decoded(
    model: LatentModel,
    adata: AnnData,
    rows: np.ndarray,
    step: np.ndarray,
    seed: int = 0,
    give_mean: bool | None = None,
) -> dict[str, np.ndarray]:
    """Decode cells after a step.

    Parameters
    ----------
    model
        A trained model.
    adata
        n cells x g genes.
    rows
        (m,) rows of ``adata`` to decode.
    step
        (d,) the same step for all rows, or (m, d).
    seed
        Of the draws.
    give_mean
        Whether to give the mean of p(x | z); ``None`` does so unless the model is one of counts. See `Shift`.

    Returns
    -------
    ``"x"`` (m, g) and ``"X_mixvi"``, the z after the step (m, d).
    """
    give_mean = not draws(model) if give_mean is None else give_mean
    steps, done = torch.as_tensor(np.broadcast_to(step, (len(rows), np.shape(step)[-1])).copy()).float(), 0

    def decode(cells: Cells) -> torch.Tensor:
        nonlocal done
        module, z = model.module, model.module.encode(cells).loc
        moved = z + steps[done : done + len(z)].to(z.device)
        done += len(z)
        px = module.decode(moved, cells)
        x = px.mean if give_mean else carry(dense(cells.x), module.decode(z, cells), px)
        return torch.cat([moved, x], -1)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = collect(model, decode, adata, rows, minified=give_mean)
    d = found.shape[1] - adata.n_vars
    x = found[:, d:]
    return {"x": log_normalize(x) if draws(model) and not give_mean else x, "X_mixvi": found[:, :d]}
