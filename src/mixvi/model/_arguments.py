"""Checks of the names and numbers that a model and `train` are given, before anything starts."""

import inspect
import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal, get_args, get_origin

import torch
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningTrainer
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import Trainer, TrainingPlan

from mixvi._checks import check_number, check_whole
from mixvi.module.nets import Hidden
from mixvi.train import MixviPlan

OF_TRAIN = ("n_importance_samples", "batch_size")  # which hands them on to the plan
OF_MIXTURE = {"n_epochs_pretrain": int, "guidance": float}  # which it hands on to the phases of a mixture
OF_BOTH = ("gradient_clip_val", "gradient_clip_algorithm")  # Lightning's names, kept by the plan

PLAN = {
    name: parameter
    for plan in (TrainingPlan, MixviPlan)
    for name, parameter in inspect.signature(plan).parameters.items()
    if name not in ("module", "plan_kwargs", "loss_kwargs", *OF_TRAIN)
}
PLAN |= {
    name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind | None)
    for name, kind in OF_MIXTURE.items()
}
TRAINER = {
    name
    for taker in (UnsupervisedTrainingMixin.train, Trainer, LightningTrainer)
    for name in inspect.signature(taker).parameters
} - {"self", "kwargs", "trainer_kwargs"} | {"ckpt_path", "data_path", *OF_TRAIN}

NO_DATAMODULE = (  # and why: starts, clusters and calibration look at single cells by their row
    "mixvi trains on an AnnData only. To train from disk, open the zarr stores with mixvi.data.from_zarr(paths), or "
    "make one of .h5ad files with mixvi.data.to_zarr. Then call setup_anndata() and train()."
)

NO_MUDATA = "A mixvi model reads one AnnData, and a MuData holds several; pass one of them, such as mdata['rna']."


def hidden_layers(n_latent: int, n_hidden: int, n_layers: int, dropout_rate: float) -> Hidden:
    """Check the sizes of a network, and give its hidden layers.

    Parameters
    ----------
    n_latent, n_hidden, n_layers, dropout_rate
        As in the classes of the models.

    Raises
    ------
    ValueError
        If a size is not a whole number or too small, or the dropout rate is not in [0, 1).
    """
    for name, value, least in (("n_latent", n_latent, 1), ("n_hidden", n_hidden, 1), ("n_layers", n_layers, 0)):
        check_whole(name, value, least)
    check_number("dropout_rate", dropout_rate, least=0, below=1)
    return Hidden(n_hidden, n_layers, dropout_rate)


def check_plan(settings: dict[str, Any]) -> None:
    """Make sure that the plan knows these settings, and that numbers are numbers.

    Raises
    ------
    ValueError
        With what may be given instead.
    """
    if of_train := sorted(set(OF_TRAIN) & set(settings)):
        raise ValueError(f"plan_kwargs got {of_train}, which are settings of train(): pass train({of_train[0]}=...).")
    _check_known(settings, PLAN, "plan_kwargs got")
    for name, value in settings.items():
        kind, default = PLAN[name].annotation, PLAN[name].default
        kinds = get_args(kind) or (kind,)
        if value is None and (default is None or type(None) in kinds or name == "n_epochs_kl_warmup"):
            continue
        value = value.item() if getattr(value, "ndim", None) == 0 else value  # of NumPy or torch
        wanted = None
        if get_origin(kind) is Literal:
            wanted = None if value in kinds else f"one of {list(kinds)}"
        elif bool in kinds:
            wanted = None if isinstance(value, bool) else "True or False"
        elif int in kinds or float in kinds:
            whole = float not in kinds
            is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or (whole and value % 1) or (value < 0 and name != "n_epochs_pretrain"):
                wanted = f"a {'whole ' if whole else ''}number{'' if name == 'n_epochs_pretrain' else ' of at least 0'}"
        if wanted:
            raise ValueError(f"plan_kwargs got {name}={value!r}; it must be {wanted}.")


def check_trainer(settings: dict[str, Any]) -> None:
    """Make sure that the trainer knows these settings, and that blocks of minibatches bear them.

    Raises
    ------
    ValueError
        With what may be given instead.
    """
    if settings.get("datamodule") is not None:
        raise ValueError(f"datamodule={type(settings['datamodule']).__name__}, and {NO_DATAMODULE}")
    if of_plan := sorted((PLAN.keys() - set(OF_BOTH)) & set(settings)):
        raise ValueError(f"{of_plan} are settings of the plan: pass train(plan_kwargs={{...}}).")
    _check_known(settings, TRAINER, "train() got", PLAN)
    callbacks = settings.get("callbacks") or []
    if not isinstance(callbacks, Iterable) or not all(isinstance(one, Callback) for one in callbacks):
        raise ValueError(f"callbacks={callbacks!r}; it must be a list of callbacks of Lightning.")
    if settings.get("accumulate_grad_batches", 1) != 1:
        raise ValueError("accumulate_grad_batches is not supported; a larger batch_size does the same.")
    by_batches = {
        "fast_dev_run",
        "limit_train_batches",
        "limit_val_batches",
        "overfit_batches",
        "val_check_interval",
    }
    if by_batches & {key for key, value in settings.items() if value}:
        raise ValueError(
            f"{sorted(by_batches & set(settings))} would count blocks of many minibatches, not minibatches; use "
            "max_steps, max_epochs, train_size or check_val_every_n_epoch."
        )


def _check_known(given: Iterable[str], known: Iterable[str], who: str, of_plan: Iterable[str] = ()) -> None:
    for name in sorted(set(given) - set(known)):
        near = get_close_matches(name, known)
        near += [f"plan_kwargs={{{other!r}: ...}}" for other in get_close_matches(name, of_plan)]
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {sorted(known)}."
        raise ValueError(f"{who} {name!r}, which it does not know{hint}")


def device_of(accelerator: str, devices: int | list[int] | str) -> torch.device:
    """The CPU or a CUDA device, as Lightning's trainer would take it; MPS has no double precision.

    Parameters
    ----------
    accelerator
        ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"`` or ``"mps"``.
    devices
        Number of a CUDA device in a list; anything else takes the first one.
    """
    if accelerator not in (known := ("auto", "cpu", "gpu", "cuda", "mps")):
        raise ValueError(f"accelerator={accelerator!r} is not known; it is one of {list(known)}.")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(f"accelerator={accelerator!r}, and there is no CUDA device; take 'auto' or 'cpu'.")
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)
