"""Training stops when the loss or a weight is not a finite number, and the model keeps the last good weights."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class FiniteWeights(Callback):
    """Stops training when the loss or a weight is NaN or infinite, and restores earlier weights.

    Weights that are finite may already give an infinite loss. So the model gets the weights that the last epoch with
    a finite loss began with.

    Attributes
    ----------
    failed
        Epoch, and name of the first such weight or ``"loss"``; ``None`` if training went well.
    """

    def __init__(self):
        self.failed: tuple[int, str] | None = None
        self._good: list[dict[str, Tensor]] = []  # at the start of the epoch before, and of this one

    def on_train_epoch_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Keep a copy of the weights.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self.failed is None:
            now = {name: value.detach().clone() for name, value in plan.get_submodule("module").state_dict().items()}
            self._good = [*self._good[-1:], now]

    def on_train_batch_end(self, trainer: Trainer, plan: LightningModule, outputs, batch, batch_idx: int) -> None:
        """Look at loss and weights after a block of minibatches.

        Parameters
        ----------
        trainer, plan, outputs, batch, batch_idx
            From Lightning.
        """
        names, values = zip(*plan.get_submodule("module").named_parameters(), strict=True)
        total = torch.stack([outputs["loss"].detach(), *(value.detach().sum() for value in values)])
        if self.failed is None and not total.isfinite().all():
            wrong = [name for name, value in zip(names, values, strict=True) if not value.isfinite().all()]
            if wrong or not outputs["loss"].isfinite():  # a sum can be too large where all values are finite
                self.failed = trainer.current_epoch, (*wrong, "loss")[0]
                trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Restore the weights, when no step follows.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self.failed is not None:
            plan.get_submodule("module").load_state_dict(self._good[0])
