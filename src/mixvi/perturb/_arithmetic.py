"""Latent arithmetic: a condition is a direction in the latent space (Lotfollahi 2019, scGen)."""

from collections.abc import Mapping

import numpy as np
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

PENALTY = 10.0  # on slopes, beside the squared error of as many cells as there are


class Shift(Predictor):
    """A step in the latent space, learned by `fit_shift`, that takes control cells to stimulated ones.

    Attributes
    ----------
    delta
        (d,) the step.
    by_type
        type: (d,), the steps that it is the mean of: how far types agree.
    local
        What gives each cell a step of its own by its place in the latent space; ``None``: all take ``delta``.
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

    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        """Encode, step, decode: from the mean z of q(z | x, c) to p(x | z + delta, c). See `Predictor.predict`.

        Models of counts give the counts that stand in p(x | z + delta, c) where the cell's own stand in p(x | z, c):
        predicted cells keep the spread and the zeros of real ones, and without a step they are the control cells.
        Others give the mean. ``.obsm["X_mixvi"]`` is z + delta (m, d).
        """
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

    Of the model's own cells, those of types that are there in both conditions are looked at. The step is the
    difference of the latent means of stimulated and control cells; with ``balance`` it is taken in each type and then
    averaged, so that each type counts the same however many cells it has, which is what the paper's sampling of equally
    many cells of each type comes to without its noise.

    Parameters
    ----------
    model
        A trained AE, VAE, CVAE or GMVAE that the condition was *not* registered with: its latent space must hold it.
        For a linear AE the prediction is that of PCA and vector arithmetic.
    condition_key
        Column of ``.obs`` with the condition.
    control, stimulated
        Its two values.
    cell_type_key
        Column of ``.obs`` with the type of each cell.
    balance
        Whether each type counts the same.
    local
        Let the step depend on where a cell is: ridge regression of its type's step on its place in the latent space,
        learned from the control cells. Types then move as their neighbours there do, and a type between two of them in
        between; a step for all, as in the paper, is the limit of a strong penalty.

    Returns
    -------
    `Shift`, whose ``predict`` moves control cells.

    Raises
    ------
    ValueError
        If no type has cells in both conditions, or the model is conditioned on ``condition_key``.
    KeyError
        If a column does not exist.

    References
    ----------
    Lotfollahi, Wolf and Theis 2019, scGen predicts single-cell perturbation responses, Nat Methods.
    """
    if condition_key in model.conditions:
        raise ValueError(
            f"The {type(model).__name__} is conditioned on {condition_key!r}, so that its latent space forgets it; use "
            "mixvi.perturb.fit_counterfactual, or a model without it."
        )
    check_scale(model)
    registered(model, None)
    treatment, obs = Treatment(condition_key, control, stimulated, cell_type_key), model.adata.obs
    treatment.check(obs, both=True)
    z = model.get_latent_representation()
    cell_type, condition = obs[cell_type_key].to_numpy(), obs[condition_key].to_numpy()
    types = treatment.types(obs)

    def step(cells: np.ndarray) -> np.ndarray:
        return z[cells & (condition == stimulated)].mean(0) - z[cells & (condition == control)].mean(0)

    by_type = {name: step(cell_type == name) for name in types}
    delta = np.mean(list(by_type.values()), axis=0) if balance else step(np.isin(cell_type, types))
    if not local:
        return Shift(model, treatment, delta, by_type)
    rows = np.flatnonzero(np.isin(cell_type, types) & (condition == control))
    _, which, size = np.unique(cell_type[rows].astype(str), return_inverse=True, return_counts=True)
    weight = len(rows) / len(size) / size[which] if balance else None
    own = np.stack([by_type[name] for name in cell_type[rows]])
    return Shift(model, treatment, delta, by_type, Ridge(PENALTY).fit(z[rows], own, weight))


def remove_batch(model: LatentModel, batch_key: str, cell_type_key: str) -> AnnData:
    """Remove batches by the same arithmetic: in each type, move every batch onto its largest one, and decode.

    Parameters
    ----------
    model
        Trained; not conditioned on the batch.
    batch_key
        Column of ``.obs`` with the batch.
    cell_type_key
        Column of ``.obs`` with the type of each cell. A type that one batch alone has stays where it is.

    Returns
    -------
    One row a cell of the model's AnnData: ``.X`` (n, g) the mean of p(x | z) at the corrected z;
    ``.obsm["X_mixvi"]`` the corrected z (n, d); ``.obs`` and ``.var`` as they were.

    Raises
    ------
    ValueError
        If the model is conditioned on the batch: then ``get_reconstruction(transform_batch=)`` does it.
    KeyError
        If a column does not exist.

    References
    ----------
    Lotfollahi 2019, section "Removing batch effects".
    """
    if batch_key in model.conditions:
        raise ValueError(
            f"The {type(model).__name__} is conditioned on {batch_key!r}: its latent space is free of it already, and "
            "get_reconstruction(transform_batch=) gives the values."
        )
    registered(model, None)
    obs = model.adata.obs
    check_present(obs, [batch_key, cell_type_key])
    z = model.get_latent_representation()
    step = np.zeros_like(z)
    for cells in obs.groupby(cell_type_key, observed=True).indices.values():
        rows = obs.iloc[cells].groupby(batch_key, observed=True).indices
        batches = {name: cells[inside] for name, inside in rows.items()}
        largest = max(batches.values(), key=len)
        for own in batches.values():
            step[own] = z[largest].mean(0) - z[own].mean(0)
    found = decoded(model, model.adata, np.arange(len(z)), step, give_mean=True)
    return AnnData(
        found["x"],
        obs=own_columns(model.adata, np.arange(len(z))),
        var=model.adata.var.copy(),
        obsm={"X_mixvi": found["X_mixvi"]},
    )


def decoded(
    model: LatentModel,
    adata: AnnData,
    rows: np.ndarray,
    step: np.ndarray,
    seed: int = 0,
    give_mean: bool | None = None,
) -> dict[str, np.ndarray]:
    """Cells (m, g) decoded after a step (d,) or (m, d), and where that led (m, d); ``None``: see `Shift.predict`."""
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
        found = collect(model, decode, adata, rows, None)
    d = found.shape[1] - adata.n_vars
    x = found[:, d:]
    return {"x": log_normalize(x) if draws(model) and not give_mean else x, "X_mixvi": found[:, :d]}
