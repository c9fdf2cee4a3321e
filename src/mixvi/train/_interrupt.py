"""Ctrl-C and SIGTERM end training between two steps. The model stays usable, and its training can continue."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mixvi._warnings import warn

IDENTITY = "mixvi_model"  # key of a checkpoint: the model that it belongs to


class Interruption(Callback):
    """Stops training at the first signal and saves a checkpoint. A second signal has its usual effect.

    Parameters
    ----------
    identity
        Text that other models do not share. Every checkpoint of the run holds it.

    Attributes
    ----------
    received
        The signal; ``None`` if there was none.
    path
        The checkpoint in the trainer's ``default_root_dir``; ``None`` if it was not written.
    """

    def __init__(self, identity: str = ""):
        self.identity = identity
        self.received: signal.Signals | None = None
        self.path: Path | None = None
        self._before: dict = {}

    def listen(self, then: Callable[[], None] = lambda: None) -> None:
        """Call ``then`` at the first signal, until `forget`. In other threads than the main one, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number, frame):
            self.received = signal.Signals(number)
            then()
            self.forget()

        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):  # None: set by C code, cannot be restored
                self._before[number] = signal.signal(number, stop)

    def forget(self) -> None:
        """Restore the usual handlers of the signals."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Handle signals from now on.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        self.listen(partial(setattr, trainer, "should_stop", True))

    def on_save_checkpoint(self, trainer: Trainer, plan: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write into a checkpoint which model it belongs to.

        Parameters
        ----------
        trainer, plan, checkpoint
            From Lightning.
        """
        checkpoint[IDENTITY] = self.identity

    def on_train_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Restore the usual handlers. After a signal, save a checkpoint.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        self.forget()
        if self.received is not None:
            name = f"interrupted-{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.ckpt"  # runs may share a folder
            path = Path(trainer.default_root_dir) / name
            try:
                trainer.save_checkpoint(path)
            except OSError as error:  # the model itself is not damaged
                warn(f"No checkpoint could be written to {path}: {error}")
            else:
                self.path = path

    def on_exception(self, trainer: Trainer, plan: LightningModule, exception: BaseException) -> None:
        """Restore the usual handlers.

        Parameters
        ----------
        trainer, plan, exception
            From Lightning.
        """
        self.forget()
