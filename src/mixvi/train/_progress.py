"""Progress as plain lines: where training starts and ends, and on request each tenth of it."""

import time
from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from mixvi._tell import tell

N_LINES = 10


class ProgressLines(Callback):
    """Says the epoch and the loss about ten times during training.

    Parameters
    ----------
    say
        Takes a line.
    """

    def __init__(self, say: Callable[[str], object] = print):
        self.say = say

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Say a line if a tenth of the epochs is over.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        done, n_epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        if done % max(n_epochs // N_LINES, 1) == 0 or done == n_epochs:
            self.say(f"Epoch {done} of {n_epochs}: loss {trainer.callback_metrics['train_loss']:.6g}")


class StartAndEnd(Callback):
    """Tells in one line what is trained, and in another one how long that took.

    Parameters
    ----------
    what
        Model and data, for the line.
    """

    def __init__(self, what: str):
        self.what, self.started, self.n_epochs = what, time.monotonic(), 0

    def on_train_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Tell the first line.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        self.n_epochs = trainer.current_epoch
        if trainer.is_global_zero:
            n_epochs = None if trainer.max_epochs == -1 else trainer.max_epochs
            self.start(n_epochs, str(trainer.strategy.root_device), trainer.current_epoch)

    def on_train_batch_end(self, trainer: Trainer, plan: LightningModule, *args) -> None:
        """Count the epoch. Lightning also counts one that is stopped before its first batch.

        Parameters
        ----------
        trainer, plan, *args
            From Lightning.
        """
        self.n_epochs = trainer.current_epoch + 1

    def teardown(self, trainer: Trainer, plan: LightningModule, stage: str) -> None:
        """Tell the last line.

        Parameters
        ----------
        trainer, plan, stage
            From Lightning.
        """
        if trainer.is_global_zero:
            self.end(self.n_epochs)

    def start(self, n_epochs: int | None, device: str, n_done: int = 0) -> None:
        """Tell the first line.

        Parameters
        ----------
        n_epochs
            At the most; ``None`` is no limit.
        device
            Where training runs.
        n_done
            Epochs of a training that continues.
        """
        self.started = time.monotonic()
        epochs = "no limit of epochs" if n_epochs is None else f"{n_epochs:,} epochs"
        tell(f"{self.what}: {epochs} on {device}{f', from epoch {n_done} on' if n_done else ''}.")

    def end(self, n_epochs: int) -> None:
        """Tell the last line.

        Parameters
        ----------
        n_epochs
            That were done.
        """
        took = time.monotonic() - self.started
        tell(f"{self.what.split()[0]} trained for {n_epochs:,} epochs in {took:{'.1f' if took < 10 else ',.0f'}} s.")
