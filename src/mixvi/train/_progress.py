"""Progress as plain lines, for logs and batch systems."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

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
