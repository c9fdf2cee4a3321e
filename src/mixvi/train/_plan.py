"""The training plan: that of scvi-tools, in blocks of minibatches.

Lightning's "batch" is a block of many minibatches. So Lightning and the metrics cost time once in each block, and not
at each step of the optimizer.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice, repeat

import torch
from scvi import REGISTRY_KEYS, settings
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from mixvi.module._elbo import ELBOModule
from mixvi.train._compiled import compiled, filled
from mixvi.train._condition_effects import SampledValues, some_cells, start_from
from mixvi.train._cuda_graph import CapturedStep, can_capture
from mixvi.train._guide import Guide, Guided
from mixvi.train._losses import LossMeter, classified, objective_of
from mixvi.train._observe import EVALUATION_BATCH, evaluate
from mixvi.train._smoothness import smoothness


class MixviPlan(TrainingPlan):
    """The plan of scvi-tools, in blocks of minibatches.

    A block is a dictionary of tensors with many cells. The plan splits it into minibatches of ``batch_size`` and takes
    one step on each. It logs means over the cells of the block. For a mixture prior, the callback `MixturePhases` adds
    the phases of training.

    Parameters
    ----------
    module
        The module to train.
    fresh
        Whether the model is untrained. Its training then starts with an estimate of the condition effects
        (`start_from`).
    n_importance_samples
        Draws of z for each cell and step, at least 1. More than one trains the importance-weighted bound.
    batch_size
        Cells in each minibatch.
    gradient_clip_val, gradient_clip_algorithm
        Limit of the gradient and its kind, as in Lightning's trainer.
    compile, compile_kwargs
        Whether :func:`torch.compile` compiles the bound of a full minibatch and its gradient, and its arguments.
        Compiling takes up to a minute, and longer with many importance samples. A mixture is compiled twice, because it
        changes when its components are placed. It is meant for CUDA, where Python takes most of the time of a step. On
        a CPU, mixvi's own kernels are faster. With one CUDA device, single precision and a fused optimizer, the whole
        step is captured as a CUDA graph and replayed. A replay does not call Lightning's hooks inside a step, such as
        ``on_before_optimizer_step``.
    **plan_kwargs
        Passed to :class:`scvi.train.TrainingPlan`.

    Raises
    ------
    ValueError
        If the optimizer is L-BFGS, or if ``compile_kwargs`` asks for CUDA graphs.
    """

    module: ELBOModule

    def __init__(
        self,
        module: ELBOModule,
        *,
        fresh: bool = False,
        n_importance_samples: int = 1,
        batch_size: int = 128,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
        compile: bool = False,
        compile_kwargs: dict | None = None,
        **plan_kwargs,
    ):
        super().__init__(module, **plan_kwargs)
        self.objective = objective_of(module)
        self.compiled = compiled(self.objective, compile_kwargs or {}) if compile else None
        self.captured: CapturedStep | None = None
        self.meter = LossMeter()
        self.automatic_optimization = False
        self.batch_size = batch_size
        self.clip = {"gradient_clip_val": gradient_clip_val, "gradient_clip_algorithm": gradient_clip_algorithm}
        self.n_importance_samples, self.fresh = n_importance_samples, fresh
        self.guide: Guide | None = None  # set by `MixturePhases`
        self.guidance = 0.0

    def __getstate__(self) -> dict:
        return super().__getstate__() | dict.fromkeys(("objective", "compiled", "captured"))  # functions of the module

    def configure_optimizers(self) -> dict:
        """Optimizer and scheduler as in scvi-tools, except L-BFGS."""
        config = super().configure_optimizers()
        if isinstance(config["optimizer"], torch.optim.LBFGS):
            raise ValueError("L-BFGS cannot train in minibatches, because the loss changes with each; use another.")
        return config

    def training_step(self, block: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Take one step of the optimizer on each minibatch of the block.

        Parameters
        ----------
        block
            Tensors of the cells (n, ...), under the names of scvi-tools.
        batch_idx
            Number of the block in the epoch; not used.

        Returns
        -------
        ``loss``, a scalar in nats: the mean over the cells; and its terms, by name.
        """
        cells = self.module.read(block)
        guide = cells.y[:, :0] if self.guide is None else self.guide.of(block[REGISTRY_KEYS.INDICES_KEY])
        n = 0
        for n_cells, minibatch in self._minibatches(Guided(cells, guide)):
            if n and (n_cells == 1 < self.batch_size or self._is_over()):
                break  # one cell has no spread for batch norm; the next epoch leaves out another cell
            if n == 0 or self._warms_up_by_steps():
                self.loss_kwargs["kl_weight"] = kl_weight = self.kl_weight.float()
            if minibatch is not None:
                self._step(minibatch, kl_weight)
            elif self.captured is not None:
                self.captured(kl_weight)
            n += n_cells
        self.log("kl_weight", self.loss_kwargs["kl_weight"], on_step=False, on_epoch=True)
        found = self.meter.take(n)
        self._log("train_loss", found, self.train_metrics, "train", prog_bar=True)
        return {"loss": found[0].loss, **found[1], "reconstruction_loss": found[0].reconstruction_loss_sum}

    def _minibatches(self, block: Guided) -> Iterator[tuple[int, Guided | None]]:
        """The number of cells of each minibatch, and the minibatch. It is ``None`` if the captured step has read it."""
        if self.captured is not None:
            self.captured.renew()
        for part in [block] if self.compiled is None else filled(block, self.batch_size):
            n_captured = 0 if self.captured is None else self.captured.read(part)
            yield from repeat((self.batch_size, None), n_captured)
            if n_captured * self.batch_size < len(part.cells.x):
                for minibatch in islice(part.split(self.batch_size), n_captured, None):
                    yield len(minibatch.cells.x), minibatch

    def _step(self, minibatch: Guided, kl_weight: Tensor) -> None:
        optimizer, (cells, guide) = self.optimizers(), minibatch
        optimizer.zero_grad()
        compiled = self.compiled if len(cells.x) >= self.batch_size else None  # other sizes would be compiled anew
        objective = self.objective if compiled is None else compiled
        loss_kwargs = self.loss_kwargs | {"kl_weight": kl_weight}
        loss, means = objective(cells, self.n_importance_samples, guide, **loss_kwargs)
        if self.guide is not None and self.guide.smooth and len(cells.x) > 1:
            smooth = smoothness(self.module, cells)
            loss = loss + self.guidance * smooth
            means["smooth"] = smooth.detach()
        self.manual_backward(loss)
        if self.clip["gradient_clip_val"]:
            self.clip_gradients(optimizer, **self.clip)
        optimizer.step()
        self.meter.add(means, len(cells.x))

    def _warms_up_by_steps(self) -> bool:
        return not self.n_epochs_kl_warmup and self.trainer.global_step <= (self.n_steps_kl_warmup or -1)

    def _is_over(self) -> bool:
        trainer, step = self.trainer, self.trainer.global_step
        may_stop = trainer.current_epoch >= (trainer.min_epochs or 0) and step >= (trainer.min_steps or 0)
        return (trainer.should_stop and may_stop) or 0 <= trainer.max_steps <= step  # -1: no limit

    def validation_step(self, block: dict[str, Tensor], batch_idx: int) -> None:
        """Log the bound of validation cells, without guidance.

        Parameters
        ----------
        block
            Tensors of the cells (n, ...), under the names of scvi-tools.
        batch_idx
            Number of the block in the epoch; not used.
        """
        meter = LossMeter()
        for part in self.module.read(block).split(max(self.batch_size, EVALUATION_BATCH)):
            meter.add(self.objective(part, self.n_importance_samples, **self.loss_kwargs)[1], len(part.x))
        found = meter.take(len(block[REGISTRY_KEYS.X_KEY]))
        self._log("validation_loss", found, self.val_metrics, "validation")

    def _log(self, name: str, found: tuple[LossOutput, dict[str, Tensor]], metrics: dict, mode: str, **kwargs) -> None:
        block, terms = found
        options = {"on_step": self.on_step, "on_epoch": self.on_epoch, "sync_dist": self.use_sync_dist}
        options["batch_size"] = block.n_obs_minibatch
        self.log(name, block.loss, **options, **kwargs)
        self.compute_and_log_metrics(block, metrics, mode)
        if (confusion := terms.pop("confusion", None)) is not None:
            n_labelled = round(float(confusion[2].sum()) * block.n_obs_minibatch)
            for metric, value in classified(confusion, terms["label"]).items():
                self.log(f"{mode}_{metric}", value, **options | {"batch_size": n_labelled})
        for term, value in terms.items():  # scvi-tools logs in inference mode, which allows no average over processes
            self.log(f"{term}_{mode}", value, **options)

    def on_train_epoch_end(self) -> None:
        """Step the learning rate scheduler, if there is one."""
        scheduler, every = self.lr_schedulers(), self.trainer.check_val_every_n_epoch
        if scheduler is not None and (self.current_epoch + 1) % (every or 1) == 0:
            scheduler.step(self.trainer.callback_metrics[self.lr_scheduler_metric])

    def on_train_start(self) -> None:
        """Start a new model from the training cells, and prepare the captured step."""
        if self.trainer.world_size > 1:  # all processes start with one seed, but need different noise
            torch.manual_seed(torch.initial_seed() + self.global_rank)
        if self.fresh and self.trainer.global_step == 0:
            self._start()
        if self.compiled is not None and can_capture(self.trainer, self.optimizers()):
            self.captured = CapturedStep(self._step, self.batch_size, self.optimizers(), self.trainer)

    def on_train_end(self) -> None:
        """Release the captured graph, and average the running means of batch norm over the processes."""
        super().on_train_end()
        if self.captured is not None:
            self.captured = None
            self.optimizers().zero_grad()  # gradients are in the memory of the graph
        if self.trainer.world_size > 1:  # each process has seen other cells
            for buffer in filter(Tensor.is_floating_point, self.module.buffers()):
                buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    def _start(self) -> None:
        """Estimate the unit of the values, and condition effects, from a sample of the training cells."""
        module, seed, datamodule = self.module, settings.seed or 0, self.trainer.datamodule
        if module.continuous is not None:
            module.continuous.fit(datamodule.cells().column(REGISTRY_KEYS.CONT_COVS_KEY, datamodule.train_idx))
        rows = datamodule.some_rows(datamodule.train_idx, some_cells(module.layout.n_genes), seed)

        def sampled() -> SampledValues:
            return SampledValues(*evaluate(module, datamodule.cells(), rows, partial(SampledValues.at, module)))

        if module.likelihood.unit is not None:
            module.likelihood.measure(sampled().scaled)
        if module.layout.n_conditions:
            start_from(module, sampled(), seed)
