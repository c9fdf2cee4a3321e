"""Phases of the training of a mixture, as a callback: pretrain, initialise, guide and calibrate."""

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
from mixvi.data import CellsSplitter
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.train._clusters import Clusters
from mixvi.train._guide import Guide, tell_of_moved
from mixvi.train._initialise import Wanted, initialise
from mixvi.train._length import MIN_PRETRAINING_STEPS, has_settled, slow_down
from mixvi.train._observe import evaluate, read_counts
from mixvi.train._plan import MixviPlan

logger = logging.getLogger(__name__)

GUIDANCE = 5.0  # nats; the weight of -log r against the reconstruction loss
MAX_PARTITIONED = 100_000  # partitioned cells; a cluster with a share of 0.001 then has 100 cells
MAX_PARTITIONED_VALUES = 200_000_000  # of their dense counts: 0.8 GB, as for 100,000 cells of 2,000 genes


class MixturePhases(Callback):
    """Phases of the training of a model whose prior is a mixture.

    1. *Pretrain.* All components are N(0, I) and frozen, so the model is a VAE.
    2. *Initialise.* The training cells are partitioned (``init``). Each leaf of the partition sets the mean, standard
       deviation and weight of one component.
    3. *Guide.* All parameters are trained jointly, while the learning rate falls linearly to 0. The loss of a cell with
       shares s in the leaves adds ``guidance`` times -sum_k s_k log r_k. So components keep their leaves.
    4. *Calibrate.* At the end of training, a temperature makes the mean confidence equal to the estimated share of
       correct assignments.

    Parameters
    ----------
    n_epochs_pretrain
        Epochs of the first phase. A negative number does not initialise the components.
    init
        Method of the partition: ``"leiden"``, ``"n2d"``, ``"imsat"``, ``"vat"``, a part for each cell of the AnnData
        (n,), or a function from latent means (m, d) to parts (m,). ``None`` does not initialise the components.
    guidance
        Weight of the guidance term in nats, 0 or more. 0 trains on the bound alone.
    n_clusters
        Number of clusters at which the tree is cut. The partition has at least as many leaves, if possible.
    min_worth
        Nats by which clusters must differ; see `mixvi.cluster.agglomerate`.
    clusters
        Result of an earlier run, whose guide continues.
    until_settled
        Whether pretraining ends earlier if the bound on held-out cells has settled: its second half brought at most
        ``min_worth`` nats a cell, and at most 5 % of the whole gain since the first epoch. It is not cut
        short before 500 steps. Joint training then takes as many epochs as pretraining.
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
        until_settled: bool = False,
    ):
        self.n_epochs_pretrain, self.guidance, self.until_settled = n_epochs_pretrain, guidance, until_settled
        self.bounds: list[float] = []  # negative, of held-out cells, at each validation of pretraining
        self.settled = False  # whether pretraining ended early
        self.wanted = Wanted(init, n_clusters, min_worth)
        self.clusters = clusters
        self.seed = settings.seed or 0

    def state_dict(self) -> dict[str, Any]:
        """State for checkpoints."""
        clusters = None if self.clusters is None else self.clusters.to_dict()
        return {
            "seed": self.seed, "clusters": clusters, "bounds": self.bounds, "settled": self.settled,
            "n_epochs_pretrain": self.n_epochs_pretrain,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint."""
        self.seed, self.bounds = state_dict["seed"], list(state_dict.get("bounds", []))
        self.settled = state_dict.get("settled", False)
        self.n_epochs_pretrain = state_dict.get("n_epochs_pretrain", self.n_epochs_pretrain)
        self.clusters = None if state_dict["clusters"] is None else Clusters.from_dict(state_dict["clusters"])

    # Lightning's hooks take any plan; `MixviPlan` is the one that runs with this callback.

    def setup(self, trainer: Trainer, plan: MixviPlan, stage: str) -> None:  # type: ignore[override]
        """Unfreeze the components, so that the optimizer includes them. An interrupted run may have left them frozen.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        stage
            ``"fit"``, or another stage of Lightning.
        """
        _hold(plan, False)

    def on_train_start(self, trainer: Trainer, plan: MixviPlan) -> None:  # type: ignore[override]
        """Freeze the components if they are not initialised yet. Otherwise start the guidance.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        """
        _hold(plan, self._waits(trainer, plan))
        self._guide(plan)

    def on_train_epoch_start(self, trainer: Trainer, plan: MixviPlan) -> None:  # type: ignore[override]
        """Initialise the components after the last epoch of pretraining. After that, lower the learning rate.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        """
        now = trainer.current_epoch
        may_end = self.until_settled and now < self.n_epochs_pretrain and trainer.global_step >= MIN_PRETRAINING_STEPS
        if may_end and has_settled(self.bounds, self.wanted.min_worth):
            self.n_epochs_pretrain, self.settled = now, True
        if now == self.n_epochs_pretrain and self.wanted.init is not None:
            self._initialise(trainer, plan)
        if self.clusters is not None and plan.lr_schedulers() is None:
            slow_down(plan, now, self._end(trainer))

    def on_validation_end(self, trainer: Trainer, plan: MixviPlan) -> None:  # type: ignore[override]
        """Note the bound on held-out cells during pretraining.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        """
        if self.clusters is None and not trainer.sanity_checking and "elbo_validation" in trainer.callback_metrics:
            self.bounds.append(float(trainer.callback_metrics["elbo_validation"]))

    def on_train_epoch_end(self, trainer: Trainer, plan: MixviPlan) -> None:  # type: ignore[override]
        """End training that is as long as twice its pretraining, if the bound has settled.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        """
        if self.settled and trainer.current_epoch + 1 == self._end(trainer):
            trainer.should_stop = True

    def on_fit_end(self, trainer: Trainer, plan: MixviPlan) -> None:  # type: ignore[override]
        """Compute the expected number of cells of each component, and calibrate.

        Parameters
        ----------
        trainer
            The trainer.
        plan
            The training plan.
        """
        _hold(plan, False)
        if self.clusters is None:
            if self.wanted.init is not None and self.n_epochs_pretrain >= 0:
                warn("Training ended before the clusters were initialised: there is one cluster. Call train() again.")
            return
        module, prior = plan.module, plan.module.mixture
        if not prior.placed:  # taken back, because a loss was not finite
            return
        prior.temperature.fill_(1.0)
        dataset, rows = _data(trainer).cells(), self.clusters.rows
        log_r, labels = (found.numpy() for found in evaluate(module, dataset, rows, _responsibilities(module)))
        k = self.clusters.tree.n_leaves
        self.clusters = self.clusters._replace(size=np.exp(log_r[:, :k]).sum(0))
        tell_of_moved(log_r.argmax(1), labels)
        group = self._group(self.clusters)
        accuracy, log_r = self._accuracy(module, _data(trainer), self.clusters, log_r[:, :k], labels, group)
        if np.isnan(accuracy):
            return
        log_p = cluster_log_probabilities(log_r, group)
        prior.temperature.fill_(temperature(log_p, accuracy))
        before, after = (softmax(log_p / t, axis=1).max(1).mean() for t in (1.0, prior.temperature.item()))
        logger.info(
            "Calibration: %s suggest that %.0f %% of the assignments are correct. Mean confidence: %.2f%s.",
            "held-out labels" if module.layout.n_labels else "assignments of two halves of the counts",
            100 * accuracy, after, "" if round(before, 2) == round(after, 2) else f", before {before:.2f}",
        )  # fmt: skip

    def _end(self, trainer: Trainer) -> int:
        """Number of epochs of the whole training; -1 for no limit."""
        most = -1 if trainer.max_epochs is None else trainer.max_epochs
        return min(most, 2 * self.n_epochs_pretrain) if self.settled else most

    def _waits(self, trainer: Trainer, plan: MixviPlan) -> bool:
        early = trainer.current_epoch - self.n_epochs_pretrain
        return self.wanted.init is not None and (early < 0 or (early == 0 and not plan.module.mixture.placed))

    def _initialise(self, trainer: Trainer, plan: MixviPlan) -> None:
        module, data = plan.module, _data(trainer)
        most = min(MAX_PARTITIONED, max(MAX_PARTITIONED_VALUES // module.layout.n_genes, 1))
        rows = data.some_rows(data.train_idx, most, self.seed)
        found = initialise(module, data.cells(), rows, self.wanted, self.seed)
        self.clusters, moments, trunk = trainer.strategy.broadcast(found)  # the same for all processes
        n_leaves, wanted = self.clusters.tree.n_leaves, self.wanted.n_clusters
        if wanted is not None and n_leaves < wanted:
            warn(f"The cells were split into {n_leaves} clusters only, but n_clusters={wanted}.")
        if trunk is not None:
            module.encoder.trunk.follow(trunk)
            plan.optimizers().optimizer.state.clear()  # its moments are from another, smaller loss
        module.mixture.place(*(values.to(plan.device) for values in moments))
        _hold(plan, False)
        self._guide(plan)

    def _guide(self, plan: MixviPlan) -> None:
        plan.guidance, plan.guide = self.guidance, None
        if self.clusters is not None and self.guidance and (self.clusters.shares > 0).any():
            rows, shares = (torch.from_numpy(values) for values in (self.clusters.rows, self.clusters.shares))
            room = plan.module.mixture.n_room - shares.shape[1]
            shares = torch.nn.functional.pad(shares.float(), (0, room))
            plan.guide = Guide.to_shares(rows, shares, self.guidance, self.clusters.smooth).to(plan.device)

    def _group(self, clusters: Clusters) -> np.ndarray:
        """Cluster (K,) of each component at the default cut of the tree."""
        n_clusters = self.wanted.n_clusters or clusters.tree.n_default
        return clusters.tree.cut(min(n_clusters, clusters.tree.n_leaves))

    @staticmethod
    def _accuracy(
        module: ELBOModule,
        data: CellsSplitter,
        clusters: Clusters,
        log_r: np.ndarray,
        labels: np.ndarray,
        group: np.ndarray,
    ) -> tuple[float, np.ndarray]:
        """Share of correct assignments (nan if unknown), and log responsibilities of such cells."""
        if module.layout.n_labels:
            held_out = data.some_rows(data.val_idx, SAMPLE, clusters.seed)
            if len(held_out) >= MIN_ASKED:
                log_p, label = (
                    found.numpy() for found in evaluate(module, data.cells(), held_out, _responsibilities(module))
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
                evaluate(module, data.cells(), rows, _responsibilities(module), half)[0].numpy()[:, : len(group)], group
            ).argmax(1)
            for half in (halves.seen, halves.held_out)
        ]
        return share_right(*guesses), log_r[some]


def _data(trainer: Trainer) -> CellsSplitter:
    """The cells of a training."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, undeclared


def _responsibilities(module: ELBOModule) -> Callable[[Cells], tuple[torch.Tensor, ...]]:
    """Log responsibilities (n, K) and label (n,) of cells."""
    return lambda cells: (module.mixture.log_responsibilities(module.encode(cells), cells), cells.label)


def _hold(plan: MixviPlan, still: bool) -> None:
    for parameter in plan.module.mixture.component_parameters():
        parameter.requires_grad_(not still)
