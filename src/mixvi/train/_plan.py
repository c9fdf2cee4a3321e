"""The training plan: scvi-tools' own in blocks of minibatches, with phases for a mixture: pretrain, place, train, sort.

Lightning's "batch" is a block of many minibatches. What Lightning and the metrics cost is paid once a block, and what
is left between two steps of the optimizer is a slice of the block and the step itself.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scvi import REGISTRY_KEYS, settings
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor
from torch.nn.functional import one_hot, pad

from mixvi.cluster import neighbor_shares
from mixvi.consensus import MAX_VALUES, place
from mixvi.module._elbo import Cells, ELBOModule
from mixvi.module.mixtures import MixturePrior
from mixvi.module.nets import Hidden
from mixvi.module.rows import dense
from mixvi.train._compiled import compiled_objective, filled_minibatches
from mixvi.train._effects import Looked, some_cells, start_from
from mixvi.train._guide import Guide
from mixvi.train._join import join
from mixvi.train._smooth import Evidence, adversarial, best_shares

logger = logging.getLogger(__name__)

VALIDATION_BATCH_SIZE = 1024
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
    `mixvi.cluster.neighbor_shares`. At the end components are sorted by size. Labels spread over the graph
    (`mixvi.classes.partition_with_classes`), or a net guesses them, whichever finds held-out labels better; labelled
    cells are guided to their classes, whose components stay first.

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
        Whether the bound of a full minibatch and its gradient go through :func:`torch.compile`, and what this is given;
        the mode, unless you choose one, is ``"reduce-overhead"``, which on CUDA captures them as a graph. Compiling
        takes up to a minute (twice for a mixture, which changes when its components are placed), and longer with many
        importance samples. It is meant for CUDA, where what Python costs is most of a step; on a CPU mixvi's own
        kernels are faster.
    **plan_kwargs
        Passed to :class:`scvi.train.TrainingPlan`.

    Raises
    ------
    ValueError
        If L-BFGS is asked for.
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
        self.compiled = compiled_objective(module, compile_kwargs or {}) if compile else None
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
            config["optimizer"]._accelerator_graph_capture_health_check = _nothing
        return config

    def training_step(self, block: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One step of the optimizer on each minibatch of the block."""
        optimizer = self.optimizers()
        found = []
        if self.guide is not None:
            block = block | {"guide": self.guide.of(block[REGISTRY_KEYS.INDICES_KEY])}
        cut = Cells.split if self.compiled is None else filled_minibatches
        for cells in cut(self.module.read(block), self.batch_size):
            if found and (len(cells.x) == 1 < self.batch_size or self._is_over()):
                break  # one cell is too few for batch norm; in the next epoch it is another that is left over
            self.loss_kwargs["kl_weight"] = self.kl_weight
            optimizer.zero_grad()
            found.append(self._objective(cells))
            self.manual_backward(found[-1].loss + self._smoothness(cells, found[-1].extra_metrics))
            if self.clip["gradient_clip_val"]:
                self.clip_gradients(optimizer, **self.clip)
            optimizer.step()
        self.log("kl_weight", self.loss_kwargs["kl_weight"], on_step=False, on_epoch=True)
        return {"loss": self._log("train_loss", found, self.train_metrics, "train", prog_bar=True)}

    def _objective(self, cells: Cells) -> LossOutput:
        if self.compiled is None or len(cells.x) < self.batch_size:  # of what is left over, each size would be compiled
            return self.module.objective(cells, self.n_importance_samples, **self.loss_kwargs)
        return self.compiled(cells, self.n_importance_samples, **self.loss_kwargs)

    def _smoothness(self, cells: Cells, metrics: dict[str, Tensor]) -> Tensor | float:
        """What it costs that a small change of a cell changes its component; with its name for the history."""
        if self.guide is None or not self.guide.smooth or len(cells.x) == 1:
            return 0.0

        def log_r(x: Tensor) -> Tensor:
            changed = cells._replace(seen=x)
            return self.prior.log_responsibilities(self.module.encode(changed), changed)

        divergence = adversarial(log_r, self.module, dense(cells.seen))
        metrics["smooth"] = divergence.detach()
        return self.guidance * divergence

    def _is_over(self) -> bool:
        steps = self.trainer.max_steps  # -1: no limit
        stopped = self.trainer.should_stop and self.trainer.fit_loop._can_stop_early  # not before min_epochs
        return stopped or 0 <= steps <= self.trainer.global_step

    def validation_step(self, block: dict[str, Tensor], batch_idx: int) -> None:
        """The same bound on cells that are not trained on."""
        cells = self.module.read(block).split(max(self.batch_size, VALIDATION_BATCH_SIZE))
        found = [self.module.objective(part, self.n_importance_samples, **self.loss_kwargs) for part in cells]
        self._log("validation_loss", found, self.val_metrics, "validation")

    def _log(self, name: str, found: list[LossOutput], metrics: dict, mode: str, **kwargs) -> Tensor:
        block, terms = join(found)
        options = {"on_step": self.on_step, "on_epoch": self.on_epoch, "sync_dist": self.use_sync_dist}
        options["batch_size"] = block.n_obs_minibatch
        self.log(name, block.loss, **options, **kwargs)
        self.compute_and_log_metrics(block, metrics, mode)
        for term, value in terms.items():  # scvi-tools logs these in inference mode, where processes cannot average
            self.log(f"{term}_{mode}", value, **options)
        return block.loss

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

    def on_train_end(self) -> None:
        """Sort the components by the number of cells they take, so that component 0 is the largest cluster."""
        super().on_train_end()
        if self.trainer.world_size > 1:  # each has seen its own share of cells, and so have the running means
            for buffer in filter(Tensor.is_floating_point, self.module.buffers()):
                buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        if self.prior is not None:
            self._hold(False)
            self._sort()
            if not self.prior.placed:
                logger.warning("Training ended before the components were placed: there is one cluster. Train further.")

    def _hold(self, still: bool) -> None:
        for parameter in self.prior.component_parameters():
            parameter.requires_grad_(not still)

    def _start(self) -> None:
        """From what conditions do to some of the training cells."""
        q, g, seed = self.module.layout.n_conditions, self.module.layout.n_genes, settings.seed or 0
        rows = self.trainer.datamodule.some_training_rows(some_cells(g), seed)

        def looked(cells: Cells) -> Tensor:
            return torch.cat([cells.c, dense(cells.seen), self.module.likelihood.scaled(cells)], -1)

        cells = Looked(*self._pass(rows, looked).split([q, g, g], -1))
        start_from(self.module, cells, seed)

    def _place(self) -> None:
        """The M-step of a mixture, from the partition: mean, total variance and share of the cells of each part."""
        seed = settings.seed or 0
        rows = self.trainer.datamodule.some_training_rows(MAX_CELLS_TO_PLACE, seed)
        seen = self._pass(rows, self._posterior_and_label)
        d = (seen.shape[1] - 1) // 2
        loc, variance, label = seen[:, :d], seen[:, d:-1], seen[:, -1].long()
        n_labels, n_wanted = self.module.layout.n_labels, self.prior.n_wanted
        logger.info("Placing clusters on a neighbour graph: half a minute the first time, two for many cells.")
        n_threads = torch.get_num_threads()
        part, graph = place(loc.numpy(), self._counts(rows), label.numpy(), n_labels, n_wanted, seed)
        torch.set_num_threads(n_threads)  # numba, below scanpy, sets OpenMP's for the whole process
        learned = self._learned(rows, label.numpy(), part, graph)
        if learned is not None:
            part = np.where(part < 0, part, learned.argmax(1))
            known = label[: len(part)].numpy() >= 0
            part[known] = label[: len(part)].numpy()[known]
        n_parts = max(part.max() + 1, n_labels)
        if n_wanted is not None and n_parts < n_wanted:
            logger.warning("Found %d clusters, %d were asked for: the cells do not part further.", n_parts, n_wanted)
        if n_parts > self.prior.n_room:
            logger.warning("Found %d clusters; the %d largest get a component.", n_parts, self.prior.n_room)
        parts = [torch.as_tensor(part == k) for k in range(min(n_parts, self.prior.n_room))]
        parts = [cells if cells.any() else ~cells for cells in parts]  # a class without a labelled training cell
        spread = [(loc[cells].var(0, correction=0) + variance[cells].mean(0)).sqrt() for cells in parts]
        found = [loc[cells].mean(0) for cells in parts], spread, [cells.float().mean() for cells in parts]
        self.prior.place(*(torch.stack(values).to(self.device) for values in found))
        if self.guidance:
            shares = torch.from_numpy(neighbor_shares(part, graph, self.prior.n_room)).float()
            if learned is not None:
                shares[part >= 0] = 0
                shares[part >= 0, : learned.shape[1]] = torch.from_numpy(learned[part >= 0, : self.prior.n_room])
            labelled = (label[: len(part)] >= 0).nonzero().squeeze(1)
            shares[labelled] = one_hot(label[labelled], self.prior.n_room).float()  # a label says more
            guide = Guide.to_shares(torch.from_numpy(rows[: len(part)]), shares, self.guidance)
            guide = guide.to(self.device)._replace(smooth=learned is not None)
            self.guide = guide if len(guide.rows) else None  # none: every label is held out

    def _learned(self, rows: np.ndarray, label: np.ndarray, part: np.ndarray, graph: csr_matrix) -> np.ndarray | None:
        layout = self.module.layout
        if not (layout.n_labels and self.guidance and (label < 0).any()) or len(part) * layout.n_genes > MAX_VALUES:
            return None
        x = csr_matrix(self._pass(rows, lambda cells: torch.cat([dense(cells.seen), cells.c], -1)).numpy())
        layers = self.module.encoder.trunk.layers
        hidden = Hidden(layers[0].weight.shape[1] if layers else 1, len(layers), 0.0)
        logger.info("Looking for what finds held-out labels best: a minute or two, several for wide layers.")
        evidence, alone = (
            Evidence(x, label[: len(part)], part),
            not layout.n_conditions,
        )  # a net may not see across them
        shares = best_shares(evidence, graph, layout.n_labels, hidden, settings.seed or 0, alone)
        swallowed = shares is not None and len(np.setdiff1d(part, [*shares.argmax(1), *range(layout.n_labels), -1]))
        return self.trainer.strategy.broadcast(None if swallowed else shares)  # processes are to go on with the same

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """With what guides the cells."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["guide"] = None if self.guide is None else tuple(self.guide.to(torch.device("cpu")))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """With what guides the cells."""
        super().on_load_checkpoint(checkpoint)
        guide = checkpoint.get("guide")
        self.guide = None if guide is None else Guide(*guide).to(self.device)

    def _sort(self) -> None:
        rows = np.arange(self.trainer.datamodule.adata_manager.adata.n_obs)
        size = torch.bincount(self._pass(rows, self._cluster), minlength=self.prior.n_room).float()
        size[~self.prior.active.cpu()] = -1
        size[: self.module.layout.n_labels] = torch.inf
        self.prior.reorder(size.argsort(descending=True, stable=True).to(self.device))

    def _counts(self, rows: np.ndarray) -> csr_matrix | None:
        """The rows (m, g) as they are, where they are counts that no condition shifts, and not too many."""
        layout = self.module.layout
        if self.module.likelihood.support != "count" or layout.n_conditions or len(rows) * layout.n_genes > MAX_VALUES:
            return None
        return csr_matrix(self._pass(rows, lambda cells: dense(cells.x)).numpy())

    def _posterior_and_label(self, cells: Cells) -> Tensor:
        qz = self.module.encode(cells)
        label = pad(cells.y, (1, 0), value=0.5).argmax(-1, keepdim=True) - 1  # (n, 1), -1 where unlabelled
        return torch.cat([qz.loc, qz.scale**2, label.to(cells.x)], -1)

    def _cluster(self, cells: Cells) -> Tensor:
        return self.prior.responsibilities(self.module.encode(cells), cells).argmax(-1)

    @torch.no_grad()
    def _pass(self, rows: np.ndarray, of: Callable[[Cells], Tensor]) -> Tensor:
        """What ``of`` says of each of the rows; of several processes, what does not share out evenly is left out."""
        was_training = self.module.training
        self.module.eval()
        found = torch.cat(
            [
                of(cells).cpu()
                for block in self.trainer.datamodule.ordered_dataloader(rows)
                for cells in self.module.read(block).split(VALIDATION_BATCH_SIZE)
            ]
        )
        self.module.train(was_training)
        if self.trainer.world_size > 1:  # each process has every n-th; all go on with the same
            found = self.all_gather(found.to(self.device)).transpose(0, 1).flatten(0, 1).cpu()
        return found


def _nothing() -> None:
    pass
