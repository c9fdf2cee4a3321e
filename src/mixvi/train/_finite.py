"""Training stops when the loss or a weight is not a finite number, and the model keeps the last good weights.

The loss is that of the training cells after each block, and that of the validation cells after each epoch.
"""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

PARTS = {"encoder": "encoder", "likelihood": "decoder", "prior": "prior"}  # names in the module, and for users


class FiniteWeights(Callback):
    """Stops training when the loss or a weight is NaN or infinite, and restores earlier weights.

    Weights that are finite may already give an infinite loss. So the model gets the weights that the last epoch with
    a finite loss began with.

    Attributes
    ----------
    failed
        Epoch, and what is not finite: a term of the loss, or a weight; ``None`` if training went well.
    """

    def __init__(self):
        self.failed: tuple[int, str] | None = None
        self._good: list[tuple[int, dict[str, Tensor]]] = []  # at the start of the epoch before, and of this one

    @property
    def kept(self) -> int:
        """Epoch before which the weights were as they are restored."""
        return self._good[0][0]

    def on_train_epoch_start(self, trainer: Trainer, plan: LightningModule) -> None:
        """Keep a copy of the weights.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self.failed is None:
            now = {name: value.detach().clone() for name, value in plan.get_submodule("module").state_dict().items()}
            self._good = [*self._good[-1:], (trainer.current_epoch, now)]

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
            terms = [name for name, value in outputs.items() if not value.isfinite()]
            weights = [name for name, value in zip(names, values, strict=True) if not value.isfinite().all()]
            if terms:
                self._stop(trainer, f"the loss term {terms[-1]!r} of the training cells")
            elif weights:  # a sum can be too large where all values are finite
                part = weights[0].split(".")[0]
                self._stop(trainer, f"a weight of the {PARTS.get(part, part)}, {weights[0]!r},")

    def on_validation_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Look at the terms of the loss of the validation cells.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        found = {name: value for name, value in trainer.callback_metrics.items() if name.endswith("_validation")}
        terms = [name.removesuffix("_validation") for name, value in found.items() if not value.isfinite()]
        if self.failed is None and not trainer.sanity_checking and terms:
            terms = [name for name in terms if name != "elbo"] or terms  # the sum of the others
            self._stop(trainer, f"the loss term {terms[0]!r} of the validation cells")

    def _stop(self, trainer: Trainer, what: str) -> None:
        self.failed = trainer.current_epoch, what
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Restore the weights, when no step follows.

        Parameters
        ----------
        trainer, plan
            From Lightning.
        """
        if self.failed is not None:
            plan.get_submodule("module").load_state_dict(self._good[0][1])
