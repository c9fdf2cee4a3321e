"""Interrupted training: how it ends, and how it continues."""

import hashlib
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixvi._file import check_keys, read_file, refusing
from mixvi._tell import tell
from mixvi.model.unchanged import look_at, same_totals, totals_of
from mixvi.train import OURS, Checkpoints, Interruption

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

NEEDED = {"epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}  # Lightning


def checkpoints_of(
    model: "LatentModel", resumed: str | None, minutes: float | None, max_epochs: int, settings: dict[str, Any]
) -> Checkpoints:
    """The callback for checkpoints. A model that continues from one first returns to where that run began.

    Parameters
    ----------
    model
        Model that is about to be trained.
    resumed
        Path of the checkpoint to continue from; ``None`` starts a new run.
    minutes
        Time between checkpoints; ``None`` writes one after a signal only.
    max_epochs
        Number of epochs in all.
    settings
        Settings of the training, by name, which must be those of the checkpoint.

    Raises
    ------
    ValueError
        If there is no such checkpoint, it is of another model, other data or other settings, or it has more epochs.
    """
    identity, totals = identity_of(model), totals_of(model)
    settings = {name: text_of(value) for name, value in settings.items()}
    if resumed is not None:
        content = _read(Path(resumed), max_epochs)
        with refusing(Path(resumed), "checkpoint"):
            found = dict(content.get(OURS, {}))
        if found.get("identity") != identity or not same_totals(totals, found["totals"]):
            raise ValueError(
                f"{resumed} is not a checkpoint of this {type(model).__name__}: class, settings, setup, cells, genes, "
                "values or registered columns differ. Make the model as it was made then, or leave ckpt_path out."
            )
        then = found["settings"]
        names = [name for name in {**then, **settings} if then.get(name) != settings.get(name)]
        if names:
            differ = ", ".join(
                f"{name}={then.get(name, 'default')} (now {settings.get(name, 'default')})" for name in names
            )
            raise ValueError(
                f"{resumed} was written by a training with other settings: {differ}. Pass the settings of then, or "
                "leave ckpt_path out to start anew."
            )
        with refusing(Path(resumed), "checkpoint"):
            check_keys(content, NEEDED)
            for name, value in found["start"].items():
                setattr(model, name, value)
            earlier, n_before, _ = found["history"], found["n_before"], found["random"]
    else:
        earlier = dict(model.history_) if model.is_trained_ else {}
        n_before = max((int(losses.index[-1]) + 1 for losses in earlier.values() if len(losses)), default=0)
    start = {name: getattr(model, name) for name in ("is_trained_", "clusters_") if hasattr(model, name)}
    return Checkpoints(identity, start, earlier, n_before, minutes, {"totals": totals, "settings": settings})


def _read(path: Path, max_epochs: int) -> dict[str, Any]:
    """The content of a checkpoint that has at most so many epochs."""
    if path.is_dir():
        raise ValueError(f"ckpt_path={str(path)!r} is a folder; pass the path of the .ckpt file in it.")
    try:
        checkpoint = read_file(path, "checkpoint")
    except FileNotFoundError as error:
        raise ValueError(f"There is no checkpoint {path}; pass the path that the interrupted train() named.") from error
    if max_epochs < (n := checkpoint.get("epoch", 0)):
        raise ValueError(
            f"{path} was written in epoch {n}, which is beyond max_epochs={max_epochs}. Pass the max_epochs of then, "
            "or more."
        )
    return checkpoint


def identity_of(model: "LatentModel") -> str:
    """A text that a model has in common only with models of the same kind, settings, cells and columns."""
    args, init = model.registry_["setup_args"], getattr(model, "_init", None)
    registered = args, model.init_params_, init, model.adata.shape, look_at(model.adata, args).columns
    names = "".join(map(str, (*model.adata.obs_names, "|", *model.adata.var_names)))
    return f"{type(model).__name__} {hashlib.sha256(f'{text_of(registered)}{names}'.encode()).hexdigest()}"


def text_of(value: Any) -> str:
    """A text that equal values have in common. Arrays are known by their content, and functions by their name."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:12]}"
    if isinstance(value, dict):
        return str({key: text_of(part) for key, part in value.items()})
    if isinstance(value, list | tuple):
        return str([text_of(part) for part in value])
    return getattr(value, "__qualname__", repr(value))


def pass_on(interruption: Interruption, epoch: int, how: str) -> None:
    """Say where a signal ended training, and let it have its usual effect.

    Parameters
    ----------
    interruption
        Holds the signal, if there was one.
    epoch
        In which it came.
    how
        Sentence on how to continue.
    """
    if interruption.received is not None:
        stopped = f"Stopped by {interruption.received.name} in epoch {epoch}; the model is usable as it is."
        tell(f"{stopped} {how}", logging.WARNING)
        raise KeyboardInterrupt if interruption.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
