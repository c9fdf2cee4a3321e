"""How a stopped training ends, and how it goes on."""

import hashlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from mixvi._file import check_keys, read_file, refusing
from mixvi._warnings import warn
from mixvi.train import OURS, Checkpoints, Interruption

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

NEEDED = {"epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}  # Lightning


def checkpoints_of(model: "LatentModel", resumed: str | None, minutes: float | None) -> Checkpoints:
    """The callback for checkpoints. A model that continues from one first returns to where that run began.

    Parameters
    ----------
    model
        Model that is about to be trained.
    resumed
        Path of the checkpoint to continue from; ``None`` starts anew.
    minutes
        Time between checkpoints; ``None`` writes one after a signal only.

    Raises
    ------
    ValueError
        If there is no such checkpoint, or it is of another model.
    """
    identity = identity_of(model)
    if resumed is not None:
        try:
            content = read_file(Path(resumed), "checkpoint")
        except FileNotFoundError as error:
            raise ValueError(
                f"There is no checkpoint {resumed}; pass the path that the interrupted train() named."
            ) from error
        with refusing(Path(resumed), "checkpoint"):
            found = dict(content.get(OURS, {}))
        if found.get("identity") != identity:
            raise ValueError(
                f"{resumed} is not a checkpoint of this {type(model).__name__}: class, settings, setup, cells or genes "
                "differ. Make the model as it was made then, or leave ckpt_path out."
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
    return Checkpoints(identity, start, earlier, n_before, minutes)


def identity_of(model: "LatentModel") -> str:
    """A text that a model has in common only with models of the same kind, settings and data."""
    registered = model.registry_["setup_args"], model.init_params_, model.adata.shape
    names = "".join(map(str, (*model.adata.obs_names, "|", *model.adata.var_names)))
    return f"{type(model).__name__} {hashlib.sha256(f'{registered}{names}'.encode()).hexdigest()}"


def pass_on(interruption: Interruption, epoch: int, how: str) -> None:
    """Say where a signal ended training, and let it have its usual effect.

    Parameters
    ----------
    interruption
        Holds the signal, if there was one.
    epoch
        In which it came.
    how
        Sentence on how to go on.
    """
    if interruption.received is not None:
        warn(f"Stopped by {interruption.received.name} in epoch {epoch}; the model is usable as it is. {how}")
        raise KeyboardInterrupt if interruption.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
