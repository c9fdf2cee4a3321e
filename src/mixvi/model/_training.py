"""How a model is trained: scvi-tools' loop, with defaults tied to the length of the run."""

import math
import signal
from abc import abstractmethod
from numbers import Integral
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scvi import settings
from scvi.model import get_max_epochs_heuristic
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import merge_kwargs

from mixvi._warnings import warn
from mixvi.data import CellsDataset, CellsSplitter
from mixvi.model._arguments import check_plan, check_trainer
from mixvi.model._registration import RegisteredModel
from mixvi.module.priors import Flat
from mixvi.ops.csr import dense
from mixvi.train import Interruption, MixturePhases, MixviPlan, fit_full_batch

MAX_CELLS = 20_000  # more are visited less often, so that their number times that of epochs stays the same
MAX_FULL_BATCH, MAX_EPOCHS_FULL_BATCH = 200_000_000, 500  # values (8 bytes each), rounds of 20 iterations


class TrainableModel(UnsupervisedTrainingMixin, RegisteredModel):
    """Abstract: `train`."""

    _max_epochs, _learning_rate = 400, 1e-3  # by default; those of scvi-tools
    _training_plan_cls = MixviPlan
    _data_splitter_cls = CellsSplitter

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool = False,
        data_path: Literal["auto", "resident", "stream"] = "auto",
        n_importance_samples: int = 1,
        plan_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        """Fit the model. ``model.history`` holds ``elbo_train``, ``elbo_validation`` and each term by its name.

        A linear AE, VAE or CVAE with ``likelihood="normal"`` has a bound without noise and is fitted to all cells at
        once, down to the optimum, with L-BFGS in double precision (`mixvi.train.fit_full_batch`). It trains in
        minibatches as every other model does if it has more than 200 million values, or if you ask for anything that
        only minibatches have: a ``batch_size``, a split, early stopping, another plan than ``max_kl_weight`` and
        ``weight_decay``.

        Ctrl-C and SIGTERM end it between two steps of minibatches (the placing of clusters of a GMVAE, half-way, is
        waited for, and a second signal acts at once): the model stays usable, and a checkpoint is left in
        ``scvi.settings.logging_dir`` that ``ckpt_path=`` goes on from, in this or another session. A fit to all cells
        at once ends after 20 iterations at most, and ``train()`` goes on from there.

        Parameters
        ----------
        max_epochs
            Passes over the training cells. ``None`` takes 400, and 100 for a GMVAE, whose learning rate is higher.
            Above 20,000 cells it is fewer, so that as many cells are visited in all.
        accelerator, devices
            Where to run, as in Lightning; ``"auto"`` takes a CUDA GPU if there is one, and never MPS by itself.
        train_size, validation_size, shuffle_set_split
            The split: nine tenths of the cells train, the others validate.
        batch_size
            Cells a minibatch; ``None`` takes 128.
        early_stopping
            Stop when ``elbo_validation`` no longer falls. Not before warm-up (and placing of components) is over.
        data_path
            ``"resident"`` puts all cells on the training device, in as few bytes as hold them, and reads a file into
            memory first; ``"stream"`` brings them block by block; ``"auto"`` is the first where they take less than
            half of the free memory, but never for what `mixvi.data.from_zarr` opened. What streams from a file (that,
            or a backed ``.h5ad``) is shuffled 64 neighbours at a time: blocks of up to 16,384 cells are made up of
            neighbours from all over the file, in a new order each epoch, and cells are shuffled within their block.
            Every cell still comes once an epoch.
        n_importance_samples
            Draws z for each cell and step; more than one trains the importance-weighted bound (Burda 2016), which is
            tighter. VAE, CVAE and GMVAE; costs as many times the decoder.
        plan_kwargs
            Of `MixviPlan` and :class:`scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``max_kl_weight`` (beta),
            ``n_epochs_kl_warmup`` (default: the first epoch), ``n_epochs_pretrain`` (GMVAE; default: half), ``compile``
            (on CUDA: capture the whole step as a graph).
        **kwargs
            Everything else of :class:`scvi.train.Trainer` and
            :meth:`scvi.model.base.UnsupervisedTrainingMixin.train`.
        """
        self._registered(None)  # another model may have registered the same AnnData since
        whole = isinstance(n_importance_samples, Integral) and n_importance_samples >= 1
        if not whole or (n_importance_samples > 1 and isinstance(self.module.prior, Flat)):
            raise ValueError(
                f"{type(self).__name__} got n_importance_samples={n_importance_samples!r}; it must be a whole number, "
                "1 or more, and an AE has no posterior to draw from: use mixvi.VAE."
            )
        for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
            if value is not None and not (isinstance(value, Integral) and value >= 1):
                raise ValueError(f"{name}={value!r}; it must be a whole number, 1 or more, or None for the default.")
        check_trainer(merge_kwargs(kwargs.get("trainer_config"), kwargs, name="trainer"))
        plan_kwargs = merge_kwargs(kwargs.pop("plan_config", None), plan_kwargs, name="plan")
        check_plan(plan_kwargs)
        n_epochs_pretrain = plan_kwargs.pop("n_epochs_pretrain", None)
        if data_path not in ("auto", "resident", "stream"):
            raise ValueError(f"data_path={data_path!r} is not known; it is 'auto', 'resident' or 'stream'.")
        if early_stopping and (train_size == 1 or validation_size == 0):
            raise ValueError("early_stopping needs cells to validate on; leave train_size and validation_size out.")
        if not plan_kwargs.get("compile"):
            plan_kwargs = {k: v for k, v in plan_kwargs.items() if k not in ("compile", "compile_kwargs")}
        only_minibatches = batch_size or early_stopping or train_size or validation_size or n_importance_samples > 1
        if not only_minibatches and self._fits_in_full_batch(plan_kwargs, kwargs):
            return self._train_full_batch(max_epochs, accelerator, devices, plan_kwargs, **kwargs)
        batch_size = batch_size or settings.batch_size
        if max_epochs is None:
            max_epochs = get_max_epochs_heuristic(self.adata.n_obs, self._max_epochs, MAX_CELLS)
        steps_an_epoch = max(int((train_size or 0.9) * self.adata.n_obs / batch_size), 1)
        plan_kwargs |= {"n_importance_samples": n_importance_samples, "batch_size": batch_size}
        plan_kwargs.setdefault("fresh", not self.is_trained_)
        plan_kwargs.setdefault("lr", self._learning_rate)
        plan_kwargs |= {key: kwargs.pop(key) for key in list(kwargs) if key.startswith("gradient_clip_")}
        kwargs["datasplitter_kwargs"] = {"data_path": data_path, **(kwargs.get("datasplitter_kwargs") or {})}
        by_steps = plan_kwargs.get("n_steps_kl_warmup")
        warmup = None if by_steps or self.is_trained_ else max(max_epochs // 400, 1)
        plan_kwargs.setdefault("n_epochs_kl_warmup", warmup)
        unsettled = plan_kwargs["n_epochs_kl_warmup"] or math.ceil((by_steps or 0) / steps_an_epoch)
        callbacks = list(kwargs.pop("callbacks", None) or [])
        phases = next((callback for callback in callbacks if isinstance(callback, MixturePhases)), None)
        if phases is None and (phases := self._phases(max_epochs, n_epochs_pretrain)) is not None:
            callbacks.append(phases)
        if phases is not None:
            unsettled = max(unsettled, phases.n_epochs_pretrain + 1)
        kwargs.setdefault("log_every_n_steps", 1)  # a step is a block, to Lightning
        if math.ceil((train_size or 0.9) * self.adata.n_obs) < self.adata.n_obs and validation_size != 0:
            kwargs.setdefault("check_val_every_n_epoch", 1)
        kwargs.setdefault("early_stopping_warmup_epochs", -(-unsettled // (kwargs.get("check_val_every_n_epoch") or 1)))
        kwargs.setdefault("use_distributed_sampler", False)  # cells are shared out already
        interruption = Interruption()
        kwargs["callbacks"] = [*callbacks, interruption]
        self.module.train()  # scvi-tools leaves a trained module in evaluation mode, and so would train it further
        try:
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
        finally:
            if phases is not None and phases.clusters is not None:
                self.clusters_ = phases.clusters.to_dict()
        how = f"train(..., ckpt_path={str(interruption.path)!r}) goes on from there." if interruption.path else ""
        _pass_on(interruption, self.trainer.current_epoch, how)

    @abstractmethod
    def _phases(self, max_epochs: int, n_epochs_pretrain: int | None) -> MixturePhases | None:
        """The phases of a mixture; ``None`` for a model without one."""

    def _fits_in_full_batch(self, plan_kwargs: dict, kwargs: dict) -> bool:
        plain = set(plan_kwargs) <= {"max_kl_weight", "weight_decay"} and set(kwargs) <= {"enable_progress_bar"}
        small = self.adata.n_obs * self.adata.n_vars <= MAX_FULL_BATCH
        return plain and small and self.module.is_linear_gaussian and self._phases(1, None) is None

    def _train_full_batch(
        self, max_epochs: int | None, accelerator, devices, plan_kwargs: dict, enable_progress_bar: bool = True
    ) -> None:
        device = _device(accelerator, devices)
        self.module.to(device).double()
        interruption = Interruption()
        interruption.listen()
        try:
            tensors = CellsDataset(self.adata_manager, device, resident=False)[np.arange(self.adata.n_obs)]
            cells = self.module.read({key: dense(value).double() for key, value in tensors.items()})
            history = fit_full_batch(
                self.module, cells, max_epochs or MAX_EPOCHS_FULL_BATCH, plan_kwargs.get("max_kl_weight", 1.0),
                plan_kwargs.get("weight_decay", 0.0), progress=enable_progress_bar, fresh=not self.is_trained_,
                stop=lambda: interruption.received is not None,
            )  # fmt: skip
        finally:
            interruption.forget()
            self.module.float()
        earlier = self.history_ if self.is_trained_ else {}
        self.history_ = {
            name: pd.concat([earlier[name], found], ignore_index=True) if name in earlier else found
            for name, found in history.items()
        }
        self.train_indices, self.validation_indices = np.arange(self.adata.n_obs), np.arange(0)
        self.is_trained_ = True
        _pass_on(interruption, len(next(iter(history.values()))), "train() goes on from there.")


def _device(accelerator: str, devices: int | list[int] | str) -> torch.device:
    """The CPU or a CUDA device, as Lightning's trainer would take it; MPS has no double precision."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)


def _pass_on(interruption: Interruption, epoch: int, how: str) -> None:
    """Say where a signal ended training, and let it have its usual effect."""
    if interruption.received is not None:
        warn(f"Stopped by {interruption.received.name} in epoch {epoch}; the model is usable as it is. {how}")
        raise KeyboardInterrupt if interruption.received == signal.SIGINT else SystemExit(128 + signal.SIGTERM)
