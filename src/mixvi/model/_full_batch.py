"""Training of a linear Gaussian model on all cells at once."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixvi.data import CellsDataset
from mixvi.model._arguments import device_of
from mixvi.model._resume import pass_on
from mixvi.model.description import size_of
from mixvi.model.unchanged import remember_cells
from mixvi.model.values import largest
from mixvi.ops.csr import dense
from mixvi.train import Interruption, StartAndEnd, fit_full_batch, use_data_units

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

MAX_FULL_BATCH, MAX_EPOCHS_FULL_BATCH = 200_000_000, 500  # values (8 bytes each), rounds of 20 iterations

NO_CHECKPOINTS = (
    "but this linear model is fitted to all cells at once, which leaves no checkpoints. Leave it out; for a long fit, "
    "repeat train(max_epochs=50) and save(), as train() goes on from there. Or set batch_size to train in minibatches."
)


def fits_in_full_batch(model: "LatentModel", plan_kwargs: dict, kwargs: dict) -> bool:
    """Whether a model can be trained on all cells at once, as asked.

    Parameters
    ----------
    model
        Model that is about to be trained.
    plan_kwargs, kwargs
        Of `LatentModel.train`.
    """
    plain = set(plan_kwargs) <= {"max_kl_weight", "weight_decay", "n_epochs_pretrain"} and set(kwargs) <= {
        "enable_progress_bar"
    }
    small = model.adata.n_obs * model.adata.n_vars <= MAX_FULL_BATCH
    return plain and small and model.module.is_linear_gaussian and model._phases(1, None, False) is None


def train_full_batch(
    model: "LatentModel", max_epochs: int | None, accelerator, devices, plan_kwargs, checkpoint_minutes: float | None,
    enable_progress_bar: bool = True,
) -> None:  # fmt: skip
    """Train a model with L-BFGS, in double precision.

    Parameters
    ----------
    model
        Linear Gaussian model.
    max_epochs, accelerator, devices, plan_kwargs, checkpoint_minutes, enable_progress_bar
        As in `LatentModel.train`.

    Raises
    ------
    ValueError
        If there is a time between checkpoints, or single precision cannot hold the weights.
    """
    if checkpoint_minutes is not None:
        raise ValueError(f"checkpoint_minutes={checkpoint_minutes}, {NO_CHECKPOINTS}")
    device = device_of(accelerator, devices)
    model.module.to(device).double()
    use_data_units(model.module, fresh=not model.is_trained_)
    max_epochs = max_epochs or MAX_EPOCHS_FULL_BATCH
    interruption, lines = Interruption(), StartAndEnd(size_of(model))
    interruption.listen()
    lines.start(max_epochs, str(device))
    try:
        tensors = CellsDataset(model.adata_manager, device, resident=False)[np.arange(model.adata.n_obs)]
        cells = model.module.read({key: dense(value).double() for key, value in tensors.items()})
        history = fit_full_batch(
            model.module, cells, max_epochs, plan_kwargs.get("max_kl_weight", 1.0),
            plan_kwargs.get("weight_decay", 0.0), progress=enable_progress_bar, fresh=not model.is_trained_,
            stop=lambda: interruption.received is not None,
        )  # fmt: skip
    finally:
        interruption.forget()
        model.module.float()
    earlier = model.history_ if model.is_trained_ else {}
    model.history_ = {
        name: pd.concat([earlier[name], found], ignore_index=True) if name in earlier else found
        for name, found in history.items()
    }
    model.train_indices, model.validation_indices = np.arange(model.adata.n_obs), np.arange(0)
    model.is_trained_, model.held_out_ = True, None  # no cell was held out
    remember_cells(model)
    if not all(value.isfinite().all() for value in model.module.state_dict().values()):
        raise ValueError(
            "The weights of this fit are too large or small for single precision. Scale the values: the largest is "
            f"{largest(model)}."
        )
    n_epochs = len(next(iter(history.values())))
    lines.end(n_epochs)
    pass_on(interruption, n_epochs, "train() continues from there.")
