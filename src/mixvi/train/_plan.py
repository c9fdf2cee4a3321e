"""The training plan: scvi-tools' own in blocks of minibatches.

Lightning's "batch" is a block of many minibatches. What Lightning and the metrics cost is paid once a block, and what
is left between two steps of the optimizer is a slice of the block and the step itself.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat

import torch
from scvi import REGISTRY_KEYS, settings
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.train._captured import CapturedStep, can_capture
from mixvi.train._compiled import compiled, filled
from mixvi.train._effects import Looked, some_cells, start_from
from mixvi.train._guide import Guide
from mixvi.train._losses import Lost, objective_of
from mixvi.train._observe import BATCH_SIZE, ask
from mixvi.train._smoothness import smoothness


class MixviPlan(TrainingPlan):
    """scvi-tools' plan in blocks of minibatches.

    A block is one dictionary of tensors with many cells; it is cut into minibatches of ``batch_size`` here, and one
    step is taken on each. What is logged of it is the mean over its cells. Models whose prior is a mixture have phases
    beside it, which are a callback (`MixturePhases`).

    Parameters
    ----------
    module
        The module to train.
    fresh
        Whether the model is new: what conditions do to the values is then looked at first (`start_from`).
    n_importance_samples
        Draws z for each cell and step; more than one trains the importance-weighted bound.
    batch_size
        Cells a minibatch.
    gradient_clip_val, gradient_clip_algorithm
        Limit of the gradient and its kind, as in Lightning's trainer.
    compile, compile_kwargs
        Whether the bound of a full minibatch and its gradient go through :func:`torch.compile`, and what this is given.
        On CUDA the whole step, optimizer and all, is then captured as a graph and replayed, if there is one GPU, single
        precision and a fused optimizer; Lightning's hooks inside a step (``on_before_optimizer_step`` and its like) are
        not called in a replay. Compiling takes up to a minute (twice for a mixture, which changes when its components
        are placed), and longer with many importance samples. It is meant for CUDA, where what Python costs is most of a
        step; on a CPU mixvi's own kernels are faster.
    **plan_kwargs
        Passed to :class:`scvi.train.TrainingPlan`.

    Raises
    ------
    ValueError
        If L-BFGS is asked for, or that torch.compile captures graphs of its own.
    """

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
        self.lost = Lost()
        self.automatic_optimization = False
        self.batch_size = batch_size
        self.clip = {"gradient_clip_val": gradient_clip_val, "gradient_clip_algorithm": gradient_clip_algorithm}
        self.n_importance_samples, self.fresh = n_importance_samples, fresh
        self.guide: Guide | None = None  # what pulls cells to components, set by `MixturePhases`
        self.guidance = 0.0

    def configure_optimizers(self) -> dict:
        """As in scvi-tools, without L-BFGS."""
        config = super().configure_optimizers()
        if isinstance(config["optimizer"], torch.optim.LBFGS):
            raise ValueError("L-BFGS asks for the loss several times a step, which minibatches change; take another.")
        return config

    def training_step(self, block: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One step of the optimizer on each minibatch of the block."""
        if self.guide is not None:
            block = block | {"guide": self.guide.of(block[REGISTRY_KEYS.INDICES_KEY])}
        n = 0
        for n_cells, step in self._steps(self.module.read(block)):
            if n and (n_cells == 1 < self.batch_size or self._is_over()):
                break  # one cell is too few for batch norm; in the next epoch it is another that is left over
            if n == 0 or self._warms_up_by_steps():
                self.loss_kwargs["kl_weight"] = kl_weight = self.kl_weight.float()
            step(kl_weight)
            n += n_cells
        self.log("kl_weight", self.loss_kwargs["kl_weight"], on_step=False, on_epoch=True)
        found = self.lost.take(n)
        self._log("train_loss", found, self.train_metrics, "train", prog_bar=True)
        return {"loss": found[0].loss}

    def _steps(self, block: Cells) -> Iterator[tuple[int, Callable[[Tensor], None]]]:
        """Of each minibatch, how many cells it has and the step on it."""
        if self.captured is not None:
            self.captured.renew()
        for part in [block] if self.compiled is None else filled(block, self.batch_size):
            n_captured = 0 if self.captured is None else self.captured.read(part)
            yield from repeat((self.batch_size, self.captured), n_captured)
            if n_captured * self.batch_size < len(part.x):
                for cells in islice(part.split(self.batch_size), n_captured, None):
                    yield len(cells.x), partial(self._step, cells)

    def _step(self, cells: Cells, kl_weight: Tensor) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        plain = self.compiled is None or len(cells.x) < self.batch_size  # each other size would be compiled
        objective = self.objective if plain else self.compiled
        loss, means = objective(cells, self.n_importance_samples, **self.loss_kwargs | {"kl_weight": kl_weight})
        if self.guide is not None and self.guide.smooth and len(cells.x) > 1:
            smooth = smoothness(self.module, cells)
            loss = loss + self.guidance * smooth
            means["smooth"] = smooth.detach()
        self.manual_backward(loss)
        if self.clip["gradient_clip_val"]:
            self.clip_gradients(optimizer, **self.clip)
        optimizer.step()
        self.lost.add(means, len(cells.x))

    def _warms_up_by_steps(self) -> bool:
        return not self.n_epochs_kl_warmup and self.trainer.global_step <= (self.n_steps_kl_warmup or -1)

    def _is_over(self) -> bool:
        trainer, step = self.trainer, self.trainer.global_step
        may_stop = trainer.current_epoch >= (trainer.min_epochs or 0) and step >= (trainer.min_steps or 0)
        return (trainer.should_stop and may_stop) or 0 <= trainer.max_steps <= step  # -1: no limit

    def validation_step(self, block: dict[str, Tensor], batch_idx: int) -> None:
        """The same bound on cells that are not trained on."""
        lost = Lost()
        for part in self.module.read(block).split(max(self.batch_size, BATCH_SIZE)):
            lost.add(self.objective(part, self.n_importance_samples, **self.loss_kwargs)[1], len(part.x))
        found = lost.take(len(block[REGISTRY_KEYS.X_KEY]))
        self._log("validation_loss", found, self.val_metrics, "validation")

    def _log(self, name: str, found: tuple[LossOutput, dict[str, Tensor]], metrics: dict, mode: str, **kwargs) -> None:
        block, terms = found
        options = {"on_step": self.on_step, "on_epoch": self.on_epoch, "sync_dist": self.use_sync_dist}
        options["batch_size"] = block.n_obs_minibatch
        self.log(name, block.loss, **options, **kwargs)
        self.compute_and_log_metrics(block, metrics, mode)
        for term, value in terms.items():  # scvi-tools logs these in inference mode, where processes cannot average
            self.log(f"{term}_{mode}", value, **options)

    def on_train_epoch_end(self) -> None:
        """Tell the scheduler, if there is one, how the epoch went."""
        scheduler, every = self.lr_schedulers(), self.trainer.check_val_every_n_epoch
        if scheduler is not None and (self.current_epoch + 1) % (every or 1) == 0:
            scheduler.step(self.trainer.callback_metrics[self.lr_scheduler_metric])

    def on_train_start(self) -> None:
        """Start from what conditions do."""
        if self.trainer.world_size > 1:  # processes start from one seed, but each needs noise of its own
            torch.manual_seed(torch.initial_seed() + self.global_rank)
        if self.fresh and self.trainer.global_step == 0 and self.module.layout.n_conditions:
            self._start()
        if self.compiled is not None and can_capture(self.trainer, self.optimizers()):
            self.captured = CapturedStep(self._step, self.batch_size, self.optimizers(), self.trainer)

    def on_train_end(self) -> None:
        """Release the captured graph; average what each process has seen of the running means."""
        super().on_train_end()
        if self.captured is not None:
            self.captured = None
            self.optimizers().zero_grad()  # gradients lie in the graph's memory
        if self.trainer.world_size > 1:  # each has seen its own share of cells, and so have the running means
            for buffer in filter(Tensor.is_floating_point, self.module.buffers()):
                buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    def _start(self) -> None:
        """From what conditions do to some of the training cells."""
        seed, datamodule = settings.seed or 0, self.trainer.datamodule
        rows = datamodule.some_rows(datamodule.train_idx, some_cells(self.module.layout.n_genes), seed)
        start_from(
            self.module, Looked(*ask(self.module, datamodule.cells(), rows, partial(Looked.at, self.module))), seed
        )
