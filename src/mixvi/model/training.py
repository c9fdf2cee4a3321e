"""How a model is trained: scvi-tools' loop, with defaults tied to the length of the run."""

import hashlib
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import issparse
from scvi import REGISTRY_KEYS, settings
from scvi.model import get_max_epochs_heuristic
from scvi.train import merge_kwargs
from torch import nn

from mixvi._checks import check_number, check_whole
from mixvi._file import read_file
from mixvi._warnings import warn
from mixvi.data import CellsDataset
from mixvi.model._arguments import check_plan, check_trainer
from mixvi.model.registration import registered
from mixvi.model.values import totals_of
from mixvi.module.priors import Flat
from mixvi.ops.csr import dense
from mixvi.train import OURS, Checkpoints, FiniteWeights, Interruption, MixturePhases, fit_full_batch

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

MAX_CELLS = 20_000  # more are visited less often, so that their number times that of epochs stays the same
MAX_FULL_BATCH, MAX_EPOCHS_FULL_BATCH = 200_000_000, 500  # values (8 bytes each), rounds of 20 iterations


def train(
    model: "LatentModel", fit: Callable[..., None], split: dict[str, Any], max_epochs: int | None, accelerator: str,
    devices: int | list[int] | str, batch_size: int | None, early_stopping: bool, data_path: str,
    n_importance_samples: int, checkpoint_minutes: float | None, plan_kwargs: dict[str, Any] | None, **kwargs,
) -> None:  # fmt: skip
    """Check the arguments of `LatentModel.train`, and fit to minibatches or to all cells at once.

    Parameters
    ----------
    model
        The model, set up and not necessarily trained.
    fit
        `train` of scvi-tools, which fits to minibatches.
    split
        ``train_size``, ``validation_size`` and ``shuffle_set_split``.
    max_epochs, accelerator, devices, batch_size, early_stopping, data_path, n_importance_samples, checkpoint_minutes
        As in `LatentModel.train`.
    plan_kwargs, **kwargs
        As in `LatentModel.train`.
    """
    registered(model, None)  # another model may have registered the same AnnData since
    _check(model, max_epochs, batch_size, n_importance_samples, data_path)
    check_trainer(merge_kwargs(kwargs.get("trainer_config"), kwargs, name="trainer"))
    plan_kwargs = merge_kwargs(kwargs.pop("plan_config", None), plan_kwargs, name="plan")
    check_plan(plan_kwargs)
    if early_stopping and (split["train_size"] == 1 or split["validation_size"] == 0):
        raise ValueError("early_stopping needs cells to validate on; leave train_size and validation_size out.")
    for name in ("train_size", "validation_size"):
        check_number(name, split[name], least=0, none="the default")
    check_number("checkpoint_minutes", checkpoint_minutes, least=0, none="no checkpoints without a signal")
    if model.adata.n_obs < 3:  # of which scvi-tools would train on none
        raise ValueError(f"There are {model.adata.n_obs} cells, and training needs at least three. Pass more cells.")
    if not plan_kwargs.get("compile"):
        plan_kwargs = {k: v for k, v in plan_kwargs.items() if k not in ("compile", "compile_kwargs")}
    is_split = split["train_size"] is not None or split["validation_size"] is not None
    only_minibatches = batch_size or early_stopping or is_split or n_importance_samples > 1
    if not only_minibatches and _fits_in_full_batch(model, plan_kwargs, kwargs):
        _train_full_batch(model, max_epochs, accelerator, devices, plan_kwargs, **kwargs)
        return
    plan_kwargs |= {"n_importance_samples": n_importance_samples, "batch_size": batch_size or settings.batch_size}
    kwargs |= {"accelerator": accelerator, "devices": devices, "early_stopping": early_stopping}
    kwargs["datasplitter_kwargs"] = {"data_path": data_path, **(kwargs.get("datasplitter_kwargs") or {})}
    _train_minibatches(model, fit, split, max_epochs, checkpoint_minutes, plan_kwargs, kwargs)


def _train_minibatches(
    model: "LatentModel", fit: Callable[..., None], split: dict, max_epochs: int | None,
    checkpoint_minutes: float | None, plan_kwargs: dict, kwargs: dict,
) -> None:  # fmt: skip
    checkpoints = _checkpoints(model, kwargs.get("ckpt_path"), checkpoint_minutes)
    if max_epochs is None:
        max_epochs = get_max_epochs_heuristic(model.adata.n_obs, model._max_epochs, MAX_CELLS)
    n_epochs_pretrain = plan_kwargs.pop("n_epochs_pretrain", None)
    plan_kwargs |= {key: kwargs.pop(key) for key in list(kwargs) if key.startswith("gradient_clip_")}
    callbacks = list(kwargs.pop("callbacks", None) or [])
    phases = next((callback for callback in callbacks if isinstance(callback, MixturePhases)), None)
    if phases is None and (phases := model._phases(max_epochs, n_epochs_pretrain)) is not None:
        callbacks.append(phases)
    _set_defaults(model, plan_kwargs, kwargs, split, max_epochs, phases)
    finite, was_trained = FiniteWeights(), model.is_trained_
    kwargs["plugins"] = [checkpoints.files, *(kwargs.get("plugins") or [])]
    model.module.train()  # scvi-tools leaves a trained module in evaluation mode, and so would train it further
    try:
        fit(
            max_epochs=max_epochs, batch_size=plan_kwargs["batch_size"], plan_kwargs=plan_kwargs,
            callbacks=[checkpoints, finite, *callbacks], **kwargs, **split,
        )  # fmt: skip
    finally:
        if phases is not None and phases.clusters is not None:  # their components may have been taken back
            model.clusters_ = phases.clusters.to_dict() if model.module.prior.placed else None
        model.trained_on_ = totals_of(model)
    if isinstance(getattr(model.trainer.logger, "history", None), dict):  # other loggers keep it themselves
        model.history_ = checkpoints.history(model.trainer)
    if finite.failed is not None:
        epoch, name = finite.failed
        model.is_trained_ = was_trained or epoch > 1
        raise ValueError(
            f"Training stopped in epoch {epoch}: {name!r} has numbers that are not finite. The model has the weights "
            f"from before epoch {max(epoch - 1, 0)}. Lower plan_kwargs={{'lr': {plan_kwargs['lr']:g}}}, the learning "
            f"rate, or look for extreme values: the largest is {_largest(model)}."
        )
    how = f"train(..., ckpt_path={str(checkpoints.path)!r}) goes on from there." if checkpoints.path else ""
    _pass_on(checkpoints.interruption, model.trainer.current_epoch, how)


def _identity(model: "LatentModel") -> str:
    """A text that a model has in common only with models of the same kind, settings and data."""
    registered = model.registry_["setup_args"], model.init_params_, model.adata.shape
    names = "".join(map(str, (*model.adata.obs_names, "|", *model.adata.var_names)))
    return f"{type(model).__name__} {hashlib.sha256(f'{registered}{names}'.encode()).hexdigest()}"


def _checkpoints(model: "LatentModel", resumed: str | None, minutes: float | None) -> Checkpoints:
    """The callback for checkpoints. A model that continues from one first returns to where that run began."""
    identity = _identity(model)
    if resumed is not None:
        try:
            found = read_file(Path(resumed), "checkpoint").get(OURS, {})
        except FileNotFoundError as error:
            raise ValueError(
                f"There is no checkpoint {resumed}; pass the path that the interrupted train() named."
            ) from error
        if found.get("identity") != identity:
            raise ValueError(
                f"{resumed} is not a checkpoint of this {type(model).__name__}: class, settings, setup, cells or genes "
                "differ. Make the model as it was made then, or leave ckpt_path out."
            )
        for name, value in found["start"].items():
            setattr(model, name, value)
        earlier = found["history"]
    else:
        earlier = dict(model.history_) if model.is_trained_ else {}
    start = {name: getattr(model, name) for name in ("is_trained_", "clusters_") if hasattr(model, name)}
    return Checkpoints(identity, start, earlier, minutes)


def _largest(model: "LatentModel") -> str:
    """The largest value of the data, with its cell and gene."""
    matrix = model.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    if not (issparse(matrix) or isinstance(matrix, np.ndarray)):
        return "not known for data in a file"
    cell, gene = np.unravel_index(abs(matrix).argmax(), matrix.shape)
    adata = model.adata
    return f"{matrix[cell, gene]:g} in cell {adata.obs_names[cell]!r}, gene {adata.var_names[gene]!r}"


def _check(model: "LatentModel", max_epochs, batch_size, n_importance_samples, data_path) -> None:
    check_whole("n_importance_samples", n_importance_samples)
    if n_importance_samples > 1 and isinstance(model.module.prior, Flat):
        raise ValueError(
            f"n_importance_samples={n_importance_samples}, but an AE has no posterior to draw from; use mixvi.VAE."
        )
    check_whole("max_epochs", max_epochs, none="the default")
    normalised = any(isinstance(part, nn.BatchNorm1d) for part in model.module.modules())  # which takes two cells
    check_whole("batch_size", batch_size, 1 + normalised, none="the default")
    if data_path not in ("auto", "resident", "stream"):
        raise ValueError(f"data_path={data_path!r} is not known; it is 'auto', 'resident' or 'stream'.")


def _set_defaults(
    model: "LatentModel", plan_kwargs: dict, kwargs: dict, split: dict, max_epochs: int, phases: MixturePhases | None
) -> None:
    """Warm-up, learning rate, validation and the start of early stopping, where the user named none."""
    n_train = (split["train_size"] or 0.9) * model.adata.n_obs
    plan_kwargs.setdefault("fresh", not model.is_trained_ and not kwargs.get("ckpt_path"))
    plan_kwargs.setdefault("lr", model._learning_rate)
    by_steps = plan_kwargs.get("n_steps_kl_warmup")
    warmup = None if by_steps or model.is_trained_ else max(max_epochs // 400, 1)
    plan_kwargs.setdefault("n_epochs_kl_warmup", warmup)
    steps_an_epoch = max(int(n_train / plan_kwargs["batch_size"]), 1)
    unsettled = plan_kwargs["n_epochs_kl_warmup"] or math.ceil((by_steps or 0) / steps_an_epoch)
    if phases is not None:
        unsettled = max(unsettled, phases.n_epochs_pretrain + 1)
    kwargs.setdefault("log_every_n_steps", 1)  # a step is a block, to Lightning
    if math.ceil(n_train) < model.adata.n_obs and split["validation_size"] != 0:
        kwargs.setdefault("check_val_every_n_epoch", 1)
    kwargs.setdefault("early_stopping_warmup_epochs", -(-unsettled // (kwargs.get("check_val_every_n_epoch") or 1)))
    kwargs.setdefault("use_distributed_sampler", False)  # cells are shared out already


def _fits_in_full_batch(model: "LatentModel", plan_kwargs: dict, kwargs: dict) -> bool:
    plain = set(plan_kwargs) <= {"max_kl_weight", "weight_decay", "n_epochs_pretrain"} and set(kwargs) <= {
        "enable_progress_bar"
    }
    small = model.adata.n_obs * model.adata.n_vars <= MAX_FULL_BATCH
    return plain and small and model.module.is_linear_gaussian and model._phases(1, None) is None


def _train_full_batch(
    model: "LatentModel", max_epochs: int | None, accelerator, devices, plan_kwargs, enable_progress_bar: bool = True
) -> None:
    device = device_of(accelerator, devices)
    model.module.to(device).double()
    interruption = Interruption()
    interruption.listen()
    try:
        tensors = CellsDataset(model.adata_manager, device, resident=False)[np.arange(model.adata.n_obs)]
        cells = model.module.read({key: dense(value).double() for key, value in tensors.items()})
        history = fit_full_batch(
            model.module, cells, max_epochs or MAX_EPOCHS_FULL_BATCH, plan_kwargs.get("max_kl_weight", 1.0),
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
    model.is_trained_, model.trained_on_ = True, totals_of(model)
    if not all(value.isfinite().all() for value in model.module.state_dict().values()):
        raise ValueError(
            "The weights of this fit are too large or small for single precision. Scale the values: the largest is "
            f"{_largest(model)}."
        )
    _pass_on(interruption, len(next(iter(history.values()))), "train() goes on from there.")


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


def _pass_on(interruption: Interruption, epoch: int, how: str) -> None:
    """Say where a signal ended training, and let it have its usual effect."""
    if interruption.received is not None:
        warn(f"Stopped by {interruption.received.name} in epoch {epoch}; the model is usable as it is. {how}")
        raise KeyboardInterrupt if interruption.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
