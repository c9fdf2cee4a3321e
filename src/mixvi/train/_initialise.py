"""Initialisation of the components of a mixture: one function for each choice of ``init``."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from mixvi.cluster.agglomerate import MIN_WORTH, agglomerate
from mixvi.cluster.count_splitting import split_counts
from mixvi.cluster.dispersion import overdispersion
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.graph import count_views, shared_neighbors
from mixvi.cluster.label_spreading import classify, found_share
from mixvi.cluster.leiden import by_size
from mixvi.cluster.partition import Partition, find_partition, mean_graph, neighbor_shares
from mixvi.data import CellsDataset
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense
from mixvi.train._clusters import Clusters
from mixvi.train._observe import evaluate, read_counts

logger = logging.getLogger(__name__)

NAMES = ("leiden", "n2d", "imsat", "vat")

Init = str | np.ndarray | Callable[[np.ndarray], np.ndarray] | None


class Wanted(NamedTuple):
    """Settings of the user."""

    init: Init = "leiden"  # a name, a part for each cell (n,), or a function of the latent means
    n_clusters: int | None = None
    min_worth: float = MIN_WORTH

    @property
    def name(self) -> str:
        """Name of the choice, for files."""
        if isinstance(self.init, str):
            return self.init
        return "array" if isinstance(self.init, np.ndarray) else getattr(self.init, "__name__", "function")

    @property
    def number(self) -> int:
        """Number of clusters, for a method that cannot infer it."""
        if self.n_clusters is None:
            raise ValueError(f"init={self.name!r} cannot infer the number of clusters; pass n_clusters.")
        return self.n_clusters


class Task(NamedTuple):
    """The cells to partition, with their latent, labels and counts."""

    module: ELBOModule
    dataset: CellsDataset
    rows: np.ndarray  # (m,) rising row numbers
    loc: torch.Tensor  # (m, d) posterior means
    variance: torch.Tensor  # (m, d) posterior variances
    labels: np.ndarray  # (m,) class; -1 if unlabelled
    evidence: Evidence | None
    views: dict[str, np.ndarray]  # (m, d) each, for the neighbour graphs
    seed: int

    def values(self) -> torch.Tensor:
        """Values (m, g) that the encoder reads, without condition effects, on the module's device."""
        encoder = self.module.encoder
        (found,) = evaluate(
            self.module, self.dataset, self.rows, lambda cells: (encoder.discounted(dense(cells.seen), cells.c),)
        )
        return found.to(next(self.module.parameters()).device)


class Found(NamedTuple):
    """A partition, and the start of further training."""

    partition: Partition
    accuracy: float = np.nan  # share of held-out labels that were predicted
    trunk: dict[str, torch.Tensor] | None = None  # hidden layers of a net that was trained on the classes


def initialise(module: ELBOModule, dataset: CellsDataset, rows: np.ndarray, wanted: Wanted, seed: int):
    """Partition the cells.

    Parameters
    ----------
    module
        Pretrained module.
    dataset
        All cells.
    rows
        (m,) rising row numbers of the cells to partition.
    wanted
        Settings of the user.
    seed
        Seed of all random steps.

    Returns
    -------
    `Clusters`; mean (K, d), standard deviation (K, d) and weight (K,) of each leaf; and hidden layers for the encoder,
    or ``None``.

    Raises
    ------
    ValueError
        If ``init`` was not saved with the model.
    """
    loc, variance, label = evaluate(module, dataset, rows, _posterior(module))
    views, evidence, alpha = {"latent": loc.numpy()}, None, np.zeros(0)
    if module.likelihood.support == "count":
        counts, stratum = read_counts(module, dataset, rows)
        alpha = overdispersion(counts, stratum, seed)
        halves = split_counts(counts, alpha, seed=seed)
        evidence = Evidence(halves, alpha, stratum)
        latent, *_ = evaluate(module, dataset, rows, _posterior(module), halves.seen)
        views = {"latent": latent.numpy()}
        if not module.layout.n_conditions:  # counts would show the conditions
            views |= count_views(halves.seen, seed)
    task = Task(module, dataset, rows, loc, variance, label.numpy(), evidence, views, seed)
    if isinstance(wanted.init, str) and wanted.init not in NAMES:
        raise ValueError(f"init={wanted.init!r} is not saved with a model. Create a new model with init, and train it.")
    choice = _by_labels if module.layout.n_labels else _CHOICES[wanted.init] if isinstance(wanted.init, str) else _given
    found = choice(task, wanted)
    partition, n_classes = found.partition, module.layout.n_labels
    clusters = Clusters(
        wanted.name, rows, partition.part, partition.shares.astype(np.float16), partition.tree, n_classes,
        partition.weights, np.bincount(partition.part[partition.part >= 0], minlength=partition.tree.n_leaves),
        found.accuracy, alpha, seed, found.trunk is not None,
    )  # fmt: skip
    return clusters, _moments(partition, loc, variance), found.trunk


def _leiden(task: Task, wanted: Wanted) -> Found:
    return Found(find_partition(task.views, task.evidence, wanted.n_clusters, wanted.min_worth, task.seed))


def _n2d(task: Task, wanted: Wanted) -> Found:
    from mixvi.cluster.n2d import n2d

    return _fixed(task, n2d(task.views["latent"], wanted.number, task.seed), evidence=task.evidence)


def _imsat(task: Task, wanted: Wanted) -> Found:
    from mixvi.cluster.imsat import imsat

    logger.info("Training four information-maximising nets. This takes some minutes.")
    shares = imsat(task.values(), wanted.number, task.module.encoder.trunk.bare, task.seed)
    return _fixed(task, shares.argmax(1), shares)


def _given(task: Task, wanted: Wanted) -> Found:
    if callable(wanted.init):
        part = np.asarray(wanted.init(task.loc.numpy()))
        if part.shape != (len(task.rows),):
            raise ValueError(
                f"init={wanted.name} gave an array of shape {part.shape}; it must give one part for each of its "
                f"{len(task.rows)} latent means."
            )
    else:
        part = np.asarray(wanted.init)[task.rows]
    return _fixed(task, part)


def _fixed(task: Task, part: np.ndarray, shares: np.ndarray | None = None, evidence: Evidence | None = None) -> Found:
    """A given partition: its parts are the leaves, and all leaves are clusters.

    Evidence is valid only if the parts were found without the held-out counts.
    """
    part = by_size(part) if shares is None else part
    graph = shared_neighbors(task.views["latent"])
    if shares is None:
        shares = neighbor_shares(part, graph)
    tree = agglomerate(part, graph, evidence, infer=False, n_parts=shares.shape[1])
    return Found(Partition(part, shares, graph, tree, {"latent": 1.0}))


def _by_labels(task: Task, wanted: Wanted) -> Found:
    """Label spreading over the graph. With ``"vat"``, nets are trained on the labels and on the spread labels."""
    labels, n_classes = task.labels, task.module.layout.n_labels
    graph, weights = mean_graph(task.views, task.evidence, task.seed)
    communities = None
    if wanted.n_clusters is not None and wanted.n_clusters > n_classes:
        found = find_partition(task.views, task.evidence, wanted.n_clusters, seed=task.seed)
        communities = found.tree.cut(wanted.n_clusters)[found.part]
    part = classify(graph, labels, n_classes, communities)
    n_parts = max(part.max(initial=0) + 1, n_classes)
    shares, trunk, known = neighbor_shares(part, graph, n_parts), None, labels >= 0
    if wanted.init == "vat":
        from mixvi.cluster.vat import learn_classes

        learned = learn_classes(
            task.values(), labels, part, n_parts, task.module.encoder.trunk.bare,
            is_count=task.evidence is not None, guess_of=lambda some: classify(graph, some, n_classes), seed=task.seed,
        )  # fmt: skip
        part, shares, trunk, accuracy = learned.shares.argmax(1), learned.shares, learned.state, learned.accuracy
    else:
        accuracy = found_share(graph, labels, n_classes, task.seed)
    part[known], shares[known] = labels[known], np.eye(n_parts)[labels[known]]
    tree = agglomerate(part, graph, task.evidence, infer=False, n_parts=n_parts)
    return Found(Partition(part, shares, graph, tree, weights), np.nan if accuracy is None else accuracy, trunk)


_CHOICES = {"leiden": _leiden, "n2d": _n2d, "imsat": _imsat}


def _moments(
    partition: Partition, loc: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (K, d), standard deviation (K, d) and share (K,) of the parts: the M-step of a mixture.

    For a class without cells, all cells are used.
    """
    parts = [torch.as_tensor(partition.part == k) for k in range(partition.shares.shape[1])]
    parts = [cells if cells.any() else ~cells for cells in parts]
    spread = [(loc[cells].var(0, correction=0) + variance[cells].mean(0)).sqrt() for cells in parts]
    mean, weight = [loc[cells].mean(0) for cells in parts], [cells.float().mean() for cells in parts]
    return torch.stack(mean), torch.stack(spread), torch.stack(weight)


def _posterior(module: ELBOModule) -> Callable[[Cells], tuple[torch.Tensor, ...]]:
    """Mean and variance (n, d) of q(z | x, c), and label (n,) of cells."""

    def of(cells: Cells) -> tuple[torch.Tensor, ...]:
        qz = module.encode(cells)
        return qz.loc, qz.scale**2, cells.label

    return of
