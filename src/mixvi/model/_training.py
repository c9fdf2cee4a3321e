"""How a model is trained: scvi-tools' loop, with defaults tied to the length of the run."""

import math
from typing import Any

from scvi import settings
from scvi.model import get_max_epochs_heuristic
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train._config import merge_kwargs

from mixvi.model._registration import RegisteredModel
from mixvi.module.priors import MixturePrior
from mixvi.train import MixviPlan

MAX_EPOCHS, MAX_VISITS = 200, 8_000_000  # of small data; above 40,000 cells the number of cells visited is fixed


class TrainableModel(UnsupervisedTrainingMixin, RegisteredModel):
    """Abstract: `train`."""

    _training_plan_cls = MixviPlan

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        early_stopping: bool = False,
        plan_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        """Fit the model. ``model.history`` holds ``elbo_train``, ``elbo_validation`` and each term by its name.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; ``None`` takes 200, or fewer above 40,000 cells: 8 million cells in all.
        accelerator, devices
            Where to run, as in Lightning; ``"auto"`` takes a CUDA GPU if there is one, and never MPS by itself.
        train_size, validation_size, shuffle_set_split
            The split: nine tenths of the cells train, the others validate.
        batch_size
            Cells a minibatch.
        early_stopping
            Stop when ``elbo_validation`` no longer falls. Not before warm-up (and placing of components) is over.
        plan_kwargs
            Of `MixviPlan` and :class:`scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``max_kl_weight`` (beta),
            ``n_epochs_kl_warmup`` (default: a tenth of the run), ``n_epochs_pretrain`` (GMVAE; default: half).
        **kwargs
            Everything else of :class:`scvi.train.Trainer` and
            :meth:`scvi.model.base.UnsupervisedTrainingMixin.train`.
        """
        self._registered(None)  # another model may have registered the same AnnData since
        batch_size = batch_size or settings.batch_size
        if max_epochs is None:
            max_epochs = get_max_epochs_heuristic(self.adata.n_obs, MAX_EPOCHS, MAX_VISITS // MAX_EPOCHS)
        steps_an_epoch = max(int((train_size or 0.9) * self.adata.n_obs / batch_size), 1)
        plan_kwargs = merge_kwargs(kwargs.pop("plan_config", None), plan_kwargs, name="plan")
        by_steps = plan_kwargs.get("n_steps_kl_warmup")
        warmup = None if by_steps or self.is_trained_ else max(max_epochs // 10, 1)
        plan_kwargs.setdefault("n_epochs_kl_warmup", warmup)
        unsettled = plan_kwargs["n_epochs_kl_warmup"] or math.ceil((by_steps or 0) / steps_an_epoch)
        if isinstance(self.module.prior, MixturePrior):
            plan_kwargs.setdefault("n_epochs_pretrain", -1 if self.module.prior.placed else max_epochs // 2)
            unsettled = max(unsettled, plan_kwargs["n_epochs_pretrain"] + 1)
        kwargs.setdefault("log_every_n_steps", steps_an_epoch)  # each entry costs as much as a step
        if train_size != 1 and validation_size != 0:
            kwargs.setdefault("check_val_every_n_epoch", 1)
        kwargs.setdefault("early_stopping_warmup_epochs", -(-unsettled // (kwargs.get("check_val_every_n_epoch") or 1)))
        self.module.train()  # scvi-tools leaves a trained module in evaluation mode, and so would train it further
        super().train(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            early_stopping=early_stopping,
            plan_kwargs=plan_kwargs,
            **kwargs,
        )
