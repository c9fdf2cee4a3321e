"""Checkpoints, from which training continues exactly as if nothing had happened.

The state of training is copied at the start of each epoch. When a signal stops training, this copy is written to a
file. Training continues from the start of that epoch: with the same weights, optimizer, order of cells, random numbers
and history.
"""

import copy
import logging
import os
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from mixvi._file import read_file, write_file
from mixvi._tell import tell
from mixvi._upstream import restart_epoch
from mixvi.train._interrupt import Interruption

OURS = "mixvi"  # key of a checkpoint: what Lightning does not know
MEMORY = "memory"  # in place of a path


class CheckpointFiles(CheckpointIO):
    """Lightning's checkpoints in the file format of mixvi: whole or not at all, with a checksum, without code.

    Attributes
    ----------
    latest
        The last checkpoint that was kept in memory.
    """

    def __init__(self):
        self.latest: dict[str, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint to a file, or keep it in memory.

        Parameters
        ----------
        checkpoint, path, storage_options
            From Lightning. ``path="memory"`` keeps a copy in `latest`.
        """
        if path == MEMORY:
            self.latest = copy.deepcopy(checkpoint)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_file(Path(path), checkpoint, "checkpoint")

    def load_checkpoint(self, path: str | os.PathLike, *args, **kwargs) -> dict[str, Any]:
        """The checkpoint in a file.

        Parameters
        ----------
        path, *args, **kwargs
            From Lightning.
        """
        return read_file(Path(path), "checkpoint")

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        """Delete a file, unless it is gone: scvi-tools deletes those that it replaces by a saved model.

        Parameters
        ----------
        path
            Of the checkpoint.
        """
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Stops training at the first signal, and leaves a checkpoint in the trainer's ``default_root_dir``.

    It must be the first callback. The file of a run that ends by itself is deleted.

    Parameters
    ----------
    identity
        Text that other models do not share. Every checkpoint of the run holds it.
    start
        Attributes of the model before training: a model that continues gets them again.
    earlier
        History of earlier training, by the name of the loss.
    n_before
        Number of epochs of earlier trainings. Of a training that continues, it is that of its beginning.
    minutes
        Time between checkpoints that are written without a signal, at the start of an epoch; ``None`` writes none.
    made_with
        Plain values by name: what must be the same when training continues. Every checkpoint of the run holds them.

    Attributes
    ----------
    files
        The plugin of the trainer.
    interruption
        Holds the signal, if there was one.
    path
        The last file that was written; ``None`` if there is none.
    """

    def __init__(
        self,
        identity: str,
        start: dict[str, Any],
        earlier: dict[str, pd.DataFrame],
        n_before: int,
        minutes: float | None = None,
        made_with: dict[str, Any] | None = None,
    ):
        self.identity, self.start, self.minutes, self.made_with = identity, start, minutes, made_with or {}
        self.earlier, self.n_before = earlier, n_before
        self.files, self.interruption = CheckpointFiles(), Interruption()
        self.path: Path | None = None
        self._random: dict[str, Any] | None = None  # of the checkpoint from which training continues
        self._starts_epoch = False
        self._written = time.monotonic()
        self._n_logged: dict[str, int] = {}  # epochs in the history when the last copy was made

    def on_train_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Handle signals from now on.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        self.interruption.listen(partial(setattr, trainer, "should_stop", True))

    def on_train_epoch_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Copy the state of training, and write it to a file if it is time.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self._random is not None:
            torch.set_rng_state(self._random["torch"])
            np.random.set_state(self._random["numpy"])
            self._random = None
        self._starts_epoch = True
        trainer.save_checkpoint(MEMORY, weights_only=False)
        self._starts_epoch = False
        self._n_logged = {name: len(losses) for name, losses in _logged(trainer).items()}
        if self.minutes is not None and time.monotonic() - self._written >= 60 * self.minutes:
            self._write(trainer)

    def on_save_checkpoint(self, trainer: Trainer, plan: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know.

        Parameters
        ----------
        trainer, plan, checkpoint
            From Lightning.
        """
        checkpoint[OURS] = {
            "identity": self.identity,
            **self.made_with,
            "start": self.start,
            "n_before": self.n_before,
            "history": {} if self._starts_epoch else self.history(trainer),  # takes long; `_write` adds it
            "random": {"torch": torch.get_rng_state(), "numpy": np.random.get_state()},
        }
        if self._starts_epoch:
            restart_epoch(checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, plan: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the state of the random number generators.

        Parameters
        ----------
        trainer, plan, checkpoint
            From Lightning.
        """
        self._random = checkpoint[OURS]["random"]

    def on_train_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Restore the usual handlers. Lightning does it too, a moment later.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        self.interruption.forget()

    def on_fit_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Handle signals while the clusters are calibrated. It is short and is not stopped.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self.interruption.received is None:
            self.interruption.listen()

    def teardown(self, trainer: Trainer, plan: LightningModule, stage: str) -> None:
        """Restore the usual handlers. After a signal, write a checkpoint; otherwise delete that of this run.

        Parameters
        ----------
        trainer, plan, stage
            From Lightning.
        """
        self.interruption.forget()
        if self.interruption.received is not None:
            self._write(trainer)
        elif self.path is not None:
            self.path.unlink(missing_ok=True)

    def history(self, trainer: Trainer) -> dict[str, pd.DataFrame]:
        """Losses of earlier training and of this one, epoch after epoch.

        Parameters
        ----------
        trainer
            Its logger has the history of this training.
        """
        return self._joined(_logged(trainer))

    def _joined(self, new: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        joined = {}
        for name in dict.fromkeys([*self.earlier, *new]):  # a run that was stopped early lacks some
            parts = [self.earlier[name]] if name in self.earlier else []
            if name in new:
                parts.append(new[name].set_axis(new[name].index + self.n_before))
            by_step = parts[0].index.name == "step"  # Lightning counts one more when training continues
            joined[name] = pd.concat(parts, ignore_index=by_step).rename_axis(parts[0].index.name)
        return joined

    def on_exception(self, trainer: Trainer, plan: LightningModule, exception: BaseException) -> None:
        """Restore the usual handlers.

        Parameters
        ----------
        trainer, plan, exception
            From Lightning.
        """
        self.interruption.forget()

    def _write(self, trainer: Trainer) -> None:
        if self.files.latest is None:  # on other processes than the first
            return
        name = f"training-{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.ckpt"  # runs may share a folder
        path = self.path or Path(trainer.default_root_dir) / name
        self._written = time.monotonic()
        logged = {name: losses[: self._n_logged.get(name, 0)] for name, losses in _logged(trainer).items()}
        state = self.files.latest[OURS] | {"history": self._joined(logged)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, self.files.latest | {OURS: state}, "checkpoint")
        except OSError as error:  # training itself is not damaged
            tell(f"No checkpoint could be written to {path}: {error}", logging.WARNING)
        else:
            self.path = path


def _logged(trainer: Trainer) -> dict[str, pd.DataFrame]:
    """Losses of this training; other loggers, and other processes than the first, have none."""
    found = getattr(trainer.logger, "history", None)
    return found if isinstance(found, dict) else {}
