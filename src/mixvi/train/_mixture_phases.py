"""Phases of a mixture as a callback: pretrain, initialise, guide, and calibrate when training ends."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from scipy.special import softmax
from scvi import settings

from mixvi._warnings import warn
from mixvi.cluster.agglomerate import MIN_WORTH
from mixvi.cluster.calibration import cluster_log_probabilities, share_right, temperature
from mixvi.cluster.count_splitting import split_counts
from mixvi.cluster.graph import SAMPLE, sample
from mixvi.cluster.label_spreading import MIN_ASKED
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.train._clusters import Clusters
from mixvi.train._guide import Guide
from mixvi.train._initialise import Wanted, initialise
from mixvi.train._observe import ask, read_counts
from mixvi.train._plan import MixviPlan

logger = logging.getLogger(__name__)

GUIDANCE = 5.0  # a cell that contradicts its leaf costs as much as five further nats of reconstruction
MAX_CELLS = 100_000  # that are partitioned: a cluster of one in a thousand then has a hundred
MAX_VALUES = 200_000_000  # of their dense counts: 0.8 GB, as for 100,000 cells of 2,000 genes


class MixturePhases(Callback):
    """Phases of the training of a model whose prior is a mixture.

    1. *Pretrain.* The components stay on top of each other, so the model is the VAE that it contains.
    2. *Initialise.* The training cells are partitioned (``init``), and each leaf gives one component its mean, spread
       and weight.
    3. *Guide.* All is trained jointly. ``guidance`` times -sum_k s_k log r_k is added to the loss of a cell with shares
       s in the leaves, so that components keep their leaves.
    4. *Calibrate.* When training ends, a temperature brings the mean confidence to the share of cells that is right.

    Parameters
    ----------
    n_epochs_pretrain
        Epochs of the first phase. A negative number leaves the components where they are.
    init
        How cells are partitioned: ``"leiden"``, ``"n2d"``, ``"imsat"``, ``"vat"``, a part for each cell of the AnnData
        (n,), or a function from latent means (m, d) to parts (m,). ``None`` leaves the components where they are.
    guidance
        Weight of the third phase's term, in nats; 0 leaves all to the bound.
    n_clusters
        Where the tree will be cut; there will be at least so many leaves.
    min_worth
        Nats by which clusters must differ; see `mixvi.cluster.agglomerate.agglomerate`.
    clusters
        What an earlier run found, to go on with the same guide.
    """

    def __init__(
        self,
        n_epochs_pretrain: int = 0,
        *,
        init: Any = "leiden",
        guidance: float = GUIDANCE,
        n_clusters: int | None = None,
        min_worth: float = MIN_WORTH,
        clusters: Clusters | None = None,
    ):
        self.n_epochs_pretrain, self.guidance = n_epochs_pretrain, guidance
        self.wanted = Wanted(init, n_clusters, min_worth)
        self.clusters = clusters

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {} if self.clusters is None else {"clusters": _as_tensors(self.clusters.to_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        if "clusters" in state_dict:
            self.clusters = Clusters.from_dict(_as_arrays(state_dict["clusters"]))

    def setup(self, trainer: Trainer, plan: MixviPlan, stage: str) -> None:
        """Let the optimizer see the components, which a run that broke off may have left still."""
        _hold(plan, False)

    def on_train_start(self, trainer: Trainer, plan: MixviPlan) -> None:
        """Hold the components still, whose parameters the optimizer knows already; guide those that are placed."""
        _hold(plan, self._waits(trainer, plan))
        self._guide(plan)

    def on_train_epoch_start(self, trainer: Trainer, plan: MixviPlan) -> None:
        """Initialise the components once the latent space has taken shape."""
        if trainer.current_epoch == self.n_epochs_pretrain and self.wanted.init is not None:
            self._initialise(trainer, plan)
        if plan.guide is not None and plan.guide.smooth and plan.lr_schedulers() is None:
            _slow_down(trainer, plan)

    def on_fit_end(self, trainer: Trainer, plan: MixviPlan) -> None:
        """Count the cells of each component, and calibrate."""
        _hold(plan, False)
        if self.clusters is None:
            if self.wanted.init is not None and self.n_epochs_pretrain >= 0:
                warn("Training ended before the clusters were initialised: there is one cluster. Call train() again.")
            return
        module, prior = plan.module, plan.module.prior
        prior.temperature.fill_(1.0)
        dataset, rows = trainer.datamodule.cells(), self.clusters.rows
        log_r, labels = (found.numpy() for found in ask(module, dataset, rows, _responsibilities(module)))
        k = self.clusters.tree.n_leaves
        self.clusters = self.clusters._replace(size=np.exp(log_r[:, :k]).sum(0))
        if moved := (log_r.argmax(1) != labels)[labels >= 0].sum():
            logger.info("%d of %d labelled cells are likelier in another cluster.", moved, (labels >= 0).sum())
        group = self._group(self.clusters)
        accuracy, log_r = self._accuracy(trainer, plan, log_r[:, :k], labels, group)
        if np.isnan(accuracy):
            return
        log_p = cluster_log_probabilities(log_r, group)
        prior.temperature.fill_(temperature(log_p, accuracy))
        before, after = (softmax(log_p / t, axis=1).max(1).mean() for t in (1.0, prior.temperature.item()))
        logger.info(
            "Calibration: about %.0f %% of cells are in their right cluster%s; mean confidence %.2f -> %.2f.",
            100 * accuracy, " by held-out labels" if module.layout.n_labels else ", by two halves of their counts",
            before, after,
        )  # fmt: skip

    def _waits(self, trainer: Trainer, plan: MixviPlan) -> bool:
        early = trainer.current_epoch - self.n_epochs_pretrain
        return self.wanted.init is not None and (early < 0 or (early == 0 and not plan.module.prior.placed))

    def _initialise(self, trainer: Trainer, plan: MixviPlan) -> None:
        module, data, seed = plan.module, trainer.datamodule, settings.seed or 0
        most = min(MAX_CELLS, max(MAX_VALUES // module.layout.n_genes, 1))
        rows = data.some_rows(data.train_idx, most, seed)
        found = initialise(module, data.cells(), rows, self.wanted, seed)
        self.clusters, moments, trunk = trainer.strategy.broadcast(found)  # processes go on with the same
        n_leaves, wanted = self.clusters.tree.n_leaves, self.wanted.n_clusters
        if wanted is not None and n_leaves < wanted:
            warn(f"The cells could be split into {n_leaves} clusters only; n_clusters={wanted}.")
        if trunk is not None:
            module.encoder.trunk.follow(trunk)
            plan.optimizers().optimizer.state.clear()  # moments of gradients of another, smaller loss
        module.prior.place(*(values.to(plan.device) for values in moments))
        _hold(plan, False)
        self._guide(plan)

    def _guide(self, plan: MixviPlan) -> None:
        plan.guidance, plan.guide = self.guidance, None
        if self.clusters is not None and self.guidance and (self.clusters.shares > 0).any():
            rows, shares = (torch.from_numpy(values) for values in (self.clusters.rows, self.clusters.shares))
            room = plan.module.prior.n_room - shares.shape[1]
            shares = torch.nn.functional.pad(shares.float(), (0, room))
            plan.guide = Guide.to_shares(rows, shares, self.guidance, self.clusters.smooth).to(plan.device)

    def _group(self, clusters: Clusters) -> np.ndarray:
        """Cluster (K,) of each component, where the tree is cut by default."""
        n_clusters = self.wanted.n_clusters or clusters.tree.n_default
        return clusters.tree.cut(min(n_clusters, clusters.tree.n_leaves))

    def _accuracy(self, trainer, plan, log_r, labels, group) -> tuple[float, np.ndarray]:
        """Share of cells in their right cluster, nan if nothing tells; and log responsibilities of like cells."""
        module, data, clusters = plan.module, trainer.datamodule, self.clusters
        if module.layout.n_labels:
            held_out = data.some_rows(data.val_idx, SAMPLE, clusters.seed)
            if len(held_out) >= MIN_ASKED:
                log_p, label = (
                    found.numpy() for found in ask(module, data.cells(), held_out, _responsibilities(module))
                )
                log_p, label = log_p[label >= 0, : log_r.shape[1]], label[label >= 0]
                if len(label) >= MIN_ASKED:
                    return ((log_p.argmax(1) == label).sum() + 1) / (len(label) + 2), log_p  # the rule of succession
            if not np.isnan(clusters.accuracy):
                return clusters.accuracy, log_r[labels < 0] if (labels < 0).any() else log_r
        if not len(clusters.overdispersion):
            return np.nan, log_r
        some = sample(len(clusters.rows), clusters.seed)
        rows = clusters.rows[some]
        counts = read_counts(module, data.cells(), rows).x
        halves = split_counts(counts, clusters.overdispersion, 0.5, clusters.seed + 1)
        guesses = [
            cluster_log_probabilities(
                ask(module, data.cells(), rows, _responsibilities(module), half)[0].numpy()[:, : len(group)], group
            ).argmax(1)
            for half in (halves.seen, halves.held_out)
        ]
        return share_right(*guesses), log_r[some]


def _responsibilities(module: ELBOModule) -> Callable[[Cells], tuple[torch.Tensor, ...]]:
    """Log responsibilities (n, K) and label (n,) of cells."""
    return lambda cells: (module.prior.log_responsibilities(module.encode(cells), cells), cells.label)


def _as_tensors(values: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint may hold, which is read without pickle."""
    convert = {dict: _as_tensors, np.ndarray: torch.from_numpy}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: convert.get(type(value), lambda same: same)(value) for name, value in plain.items()}


def _as_arrays(values: dict[str, Any]) -> dict[str, Any]:
    convert = {dict: _as_arrays, torch.Tensor: lambda tensor: tensor.cpu().numpy()}
    return {name: convert.get(type(value), lambda same: same)(value) for name, value in values.items()}


def _hold(plan: MixviPlan, still: bool) -> None:
    for parameter in plan.module.prior.component_parameters():
        parameter.requires_grad_(not still)


def _slow_down(trainer: Trainer, plan: MixviPlan) -> None:
    """Epoch by epoch, let the learning rate fall towards 0, as did that of the net the encoder goes on from."""
    now, end = trainer.current_epoch, trainer.max_epochs
    for group in plan.optimizers().param_groups:  # what is put there goes into checkpoints
        first = group.setdefault("first_epoch", now)
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * (end - now) / (end - first)
