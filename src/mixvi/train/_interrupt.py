"""Ctrl-C and SIGTERM end training between two steps, so that the model stays usable and can be trained on."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from mixvi._warnings import warn

CHECKPOINT = "interrupted.ckpt"


class Interruption(Callback):
    """Asks the trainer to stop at the first signal, and saves a checkpoint; a second signal acts as it always does.

    Attributes
    ----------
    received
        The signal, or ``None``.
    path
        The checkpoint, in the trainer's ``default_root_dir``; ``None`` if it could not be written.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self.path: Path | None = None
        self._before: dict = {}

    def listen(self, then: Callable[[], None] = lambda: None) -> None:
        """Do ``then`` at the first signal, until `forget`; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number, frame):
            self.received = signal.Signals(number)
            then()
            self.forget()

        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):  # None: set from C, it could not be put back
                self._before[number] = signal.signal(number, stop)

    def forget(self) -> None:
        """Listen no longer."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Listen."""
        self.listen(partial(setattr, trainer, "should_stop", True))

    def on_train_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Save what is needed to go on."""
        self.forget()
        if self.received is not None:
            path = Path(trainer.default_root_dir) / CHECKPOINT
            try:
                trainer.save_checkpoint(path)
            except OSError as error:  # the model itself is whole
                warn(f"No checkpoint could be written to {path}: {error}")
            else:
                self.path = path

    def on_exception(self, trainer: Trainer, plan: LightningModule, exception: BaseException) -> None:
        """Listen no longer."""
        self.forget()
