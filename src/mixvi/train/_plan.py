"""The training plan: scvi-tools' own in blocks of minibatches, with phases for a mixture: pretrain, place, train, sort.

Lightning's "batch" is a block of many minibatches. What Lightning and the metrics cost is paid once a block, and what
is left between two steps of the optimizer is a slice of the block and the step itself.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat

import numpy as np
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from mixvi.module._elbo import Cells, ELBOModule
from mixvi.module.mixtures import MixturePrior
from mixvi.train._ask import BATCH_SIZE, Question, ask
from mixvi.train._captured import CapturedStep, can_capture
from mixvi.train._compiled import compiled, filled
from mixvi.train._effects import Looked, some_cells, start_from
from mixvi.train._guide import Guide
from mixvi.train._losses import Lost, objective_of
from mixvi.train._parts import find_parts, look, posterior, report_classes
from mixvi.train._smooth import smoothness
from mixvi.train._temperature import temper

logger = logging.getLogger(__name__)

GUIDANCE = 5.0
MAX_CELLS_TO_PLACE = 100_000  # enough to see a cluster of a few dozen cells, and a neighbour graph in a minute


class MixviPlan(TrainingPlan):
    """scvi-tools' plan in blocks of minibatches, with phases for models whose prior is a mixture.

    A block is one dictionary of tensors with many cells; it is cut into minibatches of ``batch_size`` here, and one
    step is taken on each. What is logged of it is the mean over its cells.

    Until ``n_epochs_pretrain`` the components stay on top of each other, so that the model is the VAE it contains.
    Then the training cells are partitioned by neighbour graphs (`mixvi.consensus.place`), each component takes the
    mean, spread and share of one part, and everything is trained jointly, while each cell is guided to the components
    that its part and its neighbours stand for: ``guidance`` times -sum_k s_k log r_k is added to its loss, s_k from
    `mixvi.cluster.neighbor_shares`. At the end components are sorted by size, and get a temperature at which they are
    no surer than they are right, as far as that is known (``temper``). Labels spread over the graph
    (`mixvi.classes.partition_with_classes`), or nets guess them, unless the graph finds held-out labels clearly better;
    labelled cells are guided to their classes, whose components stay first. Where nets do, the encoder goes on from the
    hidden layers of one of them, with a learning rate that falls over the epochs left, unless a scheduler is asked for.

    Parameters
    ----------
    module
        The module to train.
    n_epochs_pretrain
        Epochs before the components are placed; 0 places them in the latent space of the untrained encoder, a
        negative number leaves them where they are (a model that is trained further).
    guidance
        Weight of the graph's, the net's or the label's word on a cell's component, in the joint phase, and of how
        smooth the components are around it; 0 leaves all to the bound.
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
        n_epochs_pretrain: int = 0,
        guidance: float = GUIDANCE,
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
        self.n_epochs_pretrain, self.guidance = n_epochs_pretrain, guidance
        self.guide: Guide | None = None
        self.prior = module.prior if isinstance(module.prior, MixturePrior) else None
        if self.prior is not None:
            self._hold(False)  # a run that broke off may have left them still, unseen by the optimizer

    def configure_optimizers(self) -> dict:
        """As in scvi-tools, less torch's look for a CUDA graph, which takes the CPU as long as a small step."""
        config = super().configure_optimizers()
        if isinstance(config["optimizer"], torch.optim.LBFGS):
            raise ValueError("L-BFGS asks for the loss several times a step, which minibatches change; take another.")
        if self.device.type == "cpu":
            config["optimizer"]._accelerator_graph_capture_health_check = lambda: None
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
        steps = self.trainer.max_steps  # -1: no limit
        stopped = self.trainer.should_stop and self.trainer.fit_loop._can_stop_early  # not before min_epochs
        return stopped or 0 <= steps <= self.trainer.global_step

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
        """Start from what conditions do; hold the components still, whose parameters the optimizer knows already."""
        if self.trainer.world_size > 1:  # processes start from one seed, but each needs noise of its own
            torch.manual_seed(torch.initial_seed() + self.global_rank)
        if self.fresh and self.trainer.global_step == 0 and self.module.layout.n_conditions:
            self._start()
        if self.compiled is not None and can_capture(self.trainer, self.optimizers()):
            self.captured = CapturedStep(self._step, self.batch_size, self.optimizers(), self.trainer)
        if self.guide is not None:  # a checkpoint is read before the plan comes to its device
            self.guide = self.guide.to(self.device)
        early = self.current_epoch - self.n_epochs_pretrain
        if self.prior is not None and (early < 0 or (early == 0 and not self.prior.placed)):
            self._hold(True)

    def on_train_epoch_start(self) -> None:
        """Place the components once the latent space has taken shape."""
        if self.prior is not None and self.current_epoch == self.n_epochs_pretrain:
            self._place()
            self._hold(False)
        if self.guide is not None and self.guide.smooth and self.lr_schedulers() is None:
            self._slow_down()

    def on_train_end(self) -> None:
        """Sort the components by the number of cells they take, so that component 0 is the largest cluster."""
        super().on_train_end()
        if self.captured is not None:
            self.captured = None
            self.optimizers().zero_grad()  # gradients lie in the graph's memory
        if self.trainer.world_size > 1:  # each has seen its own share of cells, and so have the running means
            for buffer in filter(Tensor.is_floating_point, self.module.buffers()):
                buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        if self.prior is not None:
            self._hold(False)
            placed, cut_short = bool(self.prior.placed), self.trainer.should_stop
            drop = self.prior.n_wanted is None and placed and not cut_short
            n_empty = self._sort(drop)
            temper(self.module, self.trainer.datamodule, self._pass, settings.seed or 0)
            if not placed:
                logger.warning("Training ended before the components were placed: there is one cluster. Train further.")
            elif n_empty:
                logger.warning("Clusters without a cell: %d%s.", n_empty, ", which were dropped" if drop else "")

    def _hold(self, still: bool) -> None:
        for parameter in self.prior.component_parameters():
            parameter.requires_grad_(not still)

    def _slow_down(self) -> None:
        """Epoch by epoch, let the learning rate fall towards 0, as did that of the net the encoder goes on from."""
        now, end = self.current_epoch, self.trainer.max_epochs
        for group in self.optimizers().param_groups:  # what is put there goes into checkpoints
            first = group.setdefault("first_epoch", now)
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (end - now) / (end - first)

    def _start(self) -> None:
        """From what conditions do to some of the training cells."""
        seed, datamodule = settings.seed or 0, self.trainer.datamodule
        rows = datamodule.some_rows(datamodule.train_idx, some_cells(self.module.layout.n_genes), seed)
        start_from(self.module, Looked(*self._pass(rows, partial(Looked.at, self.module))), seed)

    def _place(self) -> None:
        """Components from parts of the training cells, which guide these from here on."""
        seed, datamodule = settings.seed or 0, self.trainer.datamodule
        rows = datamodule.some_rows(datamodule.train_idx, MAX_CELLS_TO_PLACE, seed)
        seen = look(self.module, len(rows), lambda of: self._pass(rows, of))
        trunk = self.module.encoder.trunk
        parts = find_parts(seen, self.module.layout, self.prior, trunk, self.guidance > 0, seed)
        parts = self.trainer.strategy.broadcast(parts)  # processes are to go on with the same
        self.prior.accuracy.fill_(torch.nan if parts.accuracy is None else parts.accuracy)
        if parts.trunk is not None:
            trunk.follow(parts.trunk)
            self.optimizers().optimizer.state.clear()  # moments of gradients of another, smaller loss
        moments = parts.moments(*self._pass(rows, partial(posterior, self.module)))
        self.prior.place(*(values.to(self.device) for values in moments))
        if self.guidance:
            guide = parts.guide(rows, self.prior.n_room, self.guidance).to(self.device)
            self.guide = guide if len(guide.rows) else None  # none: every label is held out

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """With what guides the cells."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["guide"] = None if self.guide is None else tuple(self.guide.to(torch.device("cpu")))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """With what guides the cells."""
        super().on_load_checkpoint(checkpoint)
        guide = checkpoint.get("guide")
        self.guide = None if guide is None else Guide(*guide).to(self.device)

    def _sort(self, drop: bool) -> int:
        rows = np.arange(self.trainer.datamodule.adata_manager.adata.n_obs)
        encode, responsibilities = self.module.encode, self.prior.responsibilities
        cluster, label = self._pass(
            rows, lambda cells: (responsibilities(encode(cells), cells).argmax(-1), cells.label)
        )
        report_classes(cluster.numpy(), label.numpy(), self.trainer.datamodule.adata_manager)
        return self.prior.sort(cluster, self.module.layout.n_labels, drop)

    def _pass(self, rows: np.ndarray, of: Question) -> list[Tensor]:
        return ask(self.module, self.trainer, rows, of)
