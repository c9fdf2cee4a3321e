"""Training of a model by the loop of scvi-tools, with defaults that depend on the length of the run."""

import math
from typing import TYPE_CHECKING, Any, Literal

from scvi import settings as scvi_settings
from scvi.model import get_max_epochs_heuristic
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import merge_kwargs

from mixvi._checks import check_number, check_whole
from mixvi._tell import quiet
from mixvi.model._arguments import OF_MIXTURE, check_plan, check_trainer
from mixvi.model._full_batch import fits_in_full_batch, train_full_batch
from mixvi.model._novelty import remember_held_out
from mixvi.model._rebuild import follow_cells
from mixvi.model._resume import checkpoints_of, pass_on
from mixvi.model.description import size_of
from mixvi.model.query import train_mapped
from mixvi.model.registration import check_trainable
from mixvi.model.unchanged import remember_cells
from mixvi.model.values import largest
from mixvi.module.priors import Flat
from mixvi.train import FiniteWeights, MixturePhases, StartAndEnd

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

HOW = "compile", "compile_kwargs", "data_path"  # settings that may differ when training continues
MAX_FULLY_VISITED = 20_000  # more are visited less often, so that their number times that of epochs stays the same


def train(
    model: "LatentModel",
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
    checkpoint_minutes: float | None = None,
    plan_kwargs: dict[str, Any] | None = None,
    **kwargs,
) -> None:
    """Fit the model, and show one line at the start and one at the end.

    Of a model that `map` made, it trains the weights of new levels further, and no others.

    ``model.history`` holds ``elbo_train``, ``elbo_validation`` and each term by its name. With labels, it also holds
    ``train_accuracy``, ``train_f1_score``, ``train_classification_loss`` and the same of validation.

    The bound of a linear AE, VAE or CVAE with ``likelihood="normal"`` has no noise. L-BFGS fits such a model to all
    cells at once, in double precision (`mixvi.train.fit_full_batch`). It is trained in minibatches like the others
    if it has more than 200 million values, or if you set an argument that needs minibatches: ``batch_size``, a split,
    early stopping, or settings of the plan other than ``max_kl_weight`` and ``weight_decay``.

    Ctrl-C and SIGTERM end training between two steps. The model can be used as it is. A checkpoint is in
    ``scvi.settings.logging_dir``. ``train(ckpt_path=...)``, with the other arguments as before, repeats the
    interrupted epoch and continues. On one CPU, history and weights are then those of a run without interruption, up
    to rounding.

    The initialisation of a GMVAE is completed first, unless there is a second signal. A fit to all cells at once ends
    after up to 20 iterations, and ``train()`` continues it.

    Parameters
    ----------
    max_epochs
        Passes over the training cells. ``None`` takes 400. A GMVAE has a higher learning rate and takes at most 100.
        It takes fewer if the bound on the validation cells settles, after 500 steps or later. The second half of
        pretraining then gained at most ``min_worth`` nats per cell, and at most 5 % of the whole gain. The clusters are
        placed, and as many epochs follow. Above 20,000 cells, 400 and 100 decrease in proportion, so epochs times
        cells stays the same. Below 1,000 cells, 100 epochs can be too few: pass more if the validation bound still
        falls.
    accelerator, devices
        Devices to train on, as in Lightning; ``"auto"`` takes a CUDA GPU if there is one, and never MPS.
    train_size, validation_size, shuffle_set_split
        The split: nine tenths of the cells train, the others validate.
    batch_size
        Cells per minibatch; ``None`` takes 128.
    early_stopping
        Stop when ``elbo_validation`` no longer falls, after warm-up and after the placing of components.
    data_path
        ``"resident"`` copies all cells to the training device, and reads a file into memory first. ``"stream"``
        brings them block by block. ``"auto"`` takes ``"resident"`` if the cells need less than half of the free
        memory and `mixvi.data.from_zarr` did not open them. Cells of a file are shuffled in runs of 64 neighbours,
        and again within blocks of up to 16,384 cells. Each epoch has a new order, and every cell comes once.
    n_importance_samples
        Draws of z for each cell and step. More than one trains the tighter, importance-weighted bound (Burda 2016).
    checkpoint_minutes
        Minutes between checkpoints, for runs that SIGKILL or a power cut may end. Each is written at the start of
        an epoch and replaces the last. The end of training deletes it. A fit to all cells at once has none: repeat
        ``train(max_epochs=50)`` and ``save()``.
    plan_kwargs
        Settings of `MixviPlan` and :class:`scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``max_kl_weight``
        (beta), ``n_epochs_kl_warmup`` (default: the first epoch), ``n_epochs_pretrain`` (GMVAE; default: half),
        ``guidance`` (GMVAE; default: that of the model), ``compile`` (on CUDA: capture the whole step as a graph).
    **kwargs
        Further arguments of :class:`scvi.train.Trainer` and
        :meth:`scvi.model.base.UnsupervisedTrainingMixin.train`.
    """
    if model.known_levels_ is not None:
        arguments = dict(locals())
        return train_mapped(**arguments | arguments.pop("kwargs"))
    split = {"train_size": train_size, "validation_size": validation_size, "shuffle_set_split": shuffle_set_split}
    check_trainer(merge_kwargs(kwargs.get("trainer_config"), kwargs, name="trainer"))
    _check(model, max_epochs, batch_size, n_importance_samples, data_path)
    plan_kwargs = merge_kwargs(kwargs.pop("plan_config", None), plan_kwargs, name="plan")
    check_plan(plan_kwargs)
    if early_stopping and (split["train_size"] == 1 or split["validation_size"] == 0):
        raise ValueError("early_stopping needs cells to validate on; leave train_size and validation_size out.")
    for name in ("train_size", "validation_size"):
        check_number(name, split[name], least=0, none="the default")
    check_number("checkpoint_minutes", checkpoint_minutes, least=0, none="no checkpoints without a signal")
    if not plan_kwargs.get("compile"):
        plan_kwargs = {k: v for k, v in plan_kwargs.items() if k not in ("compile", "compile_kwargs")}
    is_split = split["train_size"] is not None or split["validation_size"] is not None
    only_minibatches = batch_size or early_stopping or is_split or n_importance_samples > 1
    if not only_minibatches and fits_in_full_batch(model, plan_kwargs, kwargs):
        return train_full_batch(model, max_epochs, accelerator, devices, plan_kwargs, checkpoint_minutes, **kwargs)
    plan_kwargs |= {"n_importance_samples": n_importance_samples, "batch_size": batch_size or scvi_settings.batch_size}
    kwargs |= {"accelerator": accelerator, "devices": devices, "early_stopping": early_stopping}
    kwargs["datasplitter_kwargs"] = {"data_path": data_path, **(kwargs.get("datasplitter_kwargs") or {})}
    _train_minibatches(model, split, max_epochs, checkpoint_minutes, plan_kwargs, kwargs)


def _train_minibatches(
    model: "LatentModel", split: dict, max_epochs: int | None, checkpoint_minutes: float | None, plan_kwargs: dict,
    kwargs: dict,
) -> None:  # fmt: skip
    if by_default := max_epochs is None:
        max_epochs = get_max_epochs_heuristic(model.adata.n_obs, model._max_epochs, MAX_FULLY_VISITED)
    plan_kwargs |= {key: kwargs.pop(key) for key in list(kwargs) if key.startswith("gradient_clip_")}
    settings = {"lr": model._learning_rate} | split | plan_kwargs | kwargs["datasplitter_kwargs"]
    settings = {name: value for name, value in settings.items() if name not in HOW}
    checkpoints = checkpoints_of(model, kwargs.get("ckpt_path"), checkpoint_minutes, max_epochs, settings)
    callbacks = list(kwargs.pop("callbacks", None) or [])
    phases = next((callback for callback in callbacks if isinstance(callback, MixturePhases)), None)
    of_mixture = {name: plan_kwargs.pop(name, None) for name in OF_MIXTURE}
    if phases is None and (phases := _phases_of(model, max_epochs, by_default, **of_mixture)) is not None:
        callbacks.append(phases)
    _set_defaults(model, plan_kwargs, kwargs, split, max_epochs, phases)
    finite, was_trained = FiniteWeights(), model.is_trained_
    kwargs["plugins"] = [checkpoints.files, *(kwargs.get("plugins") or [])]
    model.module.train()  # scvi-tools leaves a trained module in evaluation mode, and so would train it further
    try:
        with quiet("lightning.pytorch", "lightning.fabric"):
            UnsupervisedTrainingMixin.train(
                model, max_epochs=max_epochs, batch_size=plan_kwargs["batch_size"], plan_kwargs=plan_kwargs,
                callbacks=[checkpoints, finite, StartAndEnd(size_of(model)), *callbacks], **kwargs, **split,
            )  # fmt: skip
    finally:
        if phases is not None and phases.clusters is not None:  # their components may have been taken back
            model.clusters_ = phases.clusters.to_dict() if model.module.prior.placed else None
        remember_cells(model)
    if finite.failed is not None:
        model.is_trained_ = was_trained or finite.kept > 0
    if model.is_trained_:
        remember_held_out(model)
    if isinstance(getattr(model.trainer.logger, "history", None), dict):  # other loggers keep it themselves
        model.history_ = checkpoints.history(model.trainer)
    if finite.failed is not None:
        epoch, what = finite.failed
        raise ValueError(
            f"Training stopped in epoch {epoch}: {what} is not finite (NaN or infinite). The model has the weights "
            f"from before epoch {finite.kept}. Lower plan_kwargs={{'lr': {plan_kwargs['lr']:g}}}, the learning "
            f"rate, or look for extreme values: the largest is {largest(model)}."
        )
    how = f"train(..., ckpt_path={str(checkpoints.path)!r}) continues from there." if checkpoints.path else ""
    pass_on(checkpoints.interruption, model.trainer.current_epoch, how)


def _phases_of(
    model: "LatentModel", max_epochs: int, by_default: bool, n_epochs_pretrain: int | None, guidance: float | None
) -> MixturePhases | None:
    """The phases of a mixture, as the settings of the plan have them."""
    phases = model._phases(max_epochs, n_epochs_pretrain, by_default)
    given = {"n_epochs_pretrain": n_epochs_pretrain, "guidance": guidance}
    if phases is None and (unused := [name for name, value in given.items() if value is not None]):
        raise ValueError(f"plan_kwargs got {unused}, which a {type(model).__name__} has no use for: use mixvi.GMVAE.")
    if phases is not None and guidance is not None:
        phases.guidance = guidance
    return phases


def _check(model: "LatentModel", max_epochs, batch_size, n_importance_samples, data_path) -> None:
    follow_cells(model)
    check_trainable(model)  # another model may have registered the same AnnData since
    check_whole("n_importance_samples", n_importance_samples)
    if n_importance_samples > 1 and isinstance(model.module.prior, Flat):
        raise ValueError(
            f"n_importance_samples={n_importance_samples}, but an AE has no posterior to draw from; use mixvi.VAE."
        )
    check_whole("max_epochs", max_epochs, none="the default")
    check_whole("batch_size", batch_size, none="the default")
    if data_path not in ("auto", "resident", "stream"):
        raise ValueError(f"data_path={data_path!r} is not known; it is 'auto', 'resident' or 'stream'.")


def _set_defaults(
    model: "LatentModel", plan_kwargs: dict, kwargs: dict, split: dict, max_epochs: int, phases: MixturePhases | None
) -> None:
    """Warm-up, learning rate, validation and the start of early stopping, where the user named none."""
    n_train = (split["train_size"] or 0.9) * model.adata.n_obs
    plan_kwargs.setdefault("fresh", not model.is_trained_ and not kwargs.get("ckpt_path"))
    plan_kwargs.setdefault("lr", model._learning_rate)
    by_steps = plan_kwargs.get("n_steps_kl_warmup")
    warmup = None if by_steps or model.is_trained_ else max(max_epochs // 400, 1)
    plan_kwargs.setdefault("n_epochs_kl_warmup", warmup)
    steps_an_epoch = max(int(n_train / plan_kwargs["batch_size"]), 1)
    unsettled = plan_kwargs["n_epochs_kl_warmup"] or math.ceil((by_steps or 0) / steps_an_epoch)
    if phases is not None:
        unsettled = max(unsettled, phases.n_epochs_pretrain + 1)
    kwargs.setdefault("log_every_n_steps", 1)  # a step is a block, to Lightning
    if math.ceil(n_train) < model.adata.n_obs and split["validation_size"] != 0:
        kwargs.setdefault("check_val_every_n_epoch", 1)
    kwargs.setdefault("early_stopping_warmup_epochs", -(-unsettled // (kwargs.get("check_val_every_n_epoch") or 1)))
    kwargs.setdefault("use_distributed_sampler", False)  # cells are shared out already
