"""Classes of cells by nets that the worst small change of a cell does not mislead.

A neighbour graph carries few labels far; of many labels, nets learn more than the graph knows. Both, and the nets that
learn from both, are asked for labels that are held out.
"""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mixvi.classes import held_out, partition_with_classes
from mixvi.module._elbo import Cells, ELBOModule
from mixvi.module.nets import Trunk
from mixvi.module.rows import dense

logger = logging.getLogger(__name__)

BATCH_SIZE, N_LABELLED = 256, 128  # cells of a step; labelled ones that are drawn beside them
N_EPOCHS, MIN_STEPS, MAX_STEPS = 20, 500, 4700
TOLERATED = 0.02  # share of held-out labels that learning without a guess may cost, for what it gains in the end
TRIED = 0.3  # share of the steps that a net gets while held-out labels are asked for
RADIUS = 0.25  # of the changes: share of the distance to the nearest other cell of the minibatch
PROBE = 0.1  # of the radius: how far the direction of the worst change is looked for
DOUBT = 0.5  # weight of the entropy of the classes of a cell, where it is not counts: types of cells shade off
WINDOW = 0.1  # of the steps: how far the running mean of the weights looks back


class Evidence(NamedTuple):
    """What a net may learn the classes of n cells from; -1 is unknown."""

    x: Tensor | None  # (n, g) what encoders see; None leaves it at the guess
    labels: np.ndarray  # (n,)
    guess: np.ndarray  # (n,) what the graph makes of the labels; new parts have numbers of their own
    is_count: bool = False


class Learned(NamedTuple):
    """What nets learned of the K parts of n cells."""

    shares: np.ndarray  # (n, K)
    trunk: dict[str, Tensor]  # the hidden layers of one of them


def learn_classes(
    evidence: Evidence,
    graph: csr_matrix,
    n_classes: int,
    trunk: Trunk,
    alone: bool = True,
    seed: int = 0,
) -> tuple[Learned | None, float | None]:
    """The K parts of the guess by nets, or None where the graph's guess itself is clearly better; how right they are.

    A fifth of the labels is held out. The nets that learn from labels and the graph's guess, the one that learns from
    labels alone (if ``alone``, and there are no parts but classes), and the guess itself are asked for them. A guess
    helps nets early and holds them back later: so labels alone are learned from where that surely costs no more than
    a fiftieth of those asked for. Few labels cannot say so, and the guess is what they need. To be taken as it is, the
    guess must surely be ahead of all nets. Sure is what a standard error does not turn (`_sure_lead`). A part
    that nets leave empty keeps the cells of the guess. Where no label can be held out (`mixvi.classes.held_out`), it is
    left at the guess.

    Returns
    -------
    Nets or None, and the share of held-out labels that they, or the guess, found; None where none could be asked for.
    """
    labels, guess = evidence.labels, evidence.guess
    n_parts = max(guess.max() + 1, n_classes)
    folds = held_out(labels, seed)
    if not folds:
        return None, None
    out = folds[0]
    if evidence.x is not None:
        logger.info("Looking for what finds held-out labels best: a minute or two, several for wide layers.")
    rest = labels.copy()
    rest[out] = -1
    graph_says, _ = partition_with_classes(graph, rest, n_classes, seed=seed)
    unknown = np.full(len(labels), -1)
    sources = {} if evidence.x is None else {"both": graph_says}
    if sources and alone and n_parts == n_classes:
        sources["labels"] = unknown
    said = {
        name: smooth(evidence._replace(labels=rest, guess=source), n_classes, trunk, seed, TRIED).shares.argmax(1)
        for name, source in sources.items()
    } | {"graph": graph_says}
    right = {name: classes[out] == labels[out] for name, classes in said.items()}
    enough = "labels" in right and _sure_lead(right["labels"], right["both"]) > -TOLERATED * len(out)
    best = "labels" if enough else "both"
    ways = {"both": "nets with the graph's guess", "labels": "nets without it", "graph": "the graph"}
    hits = ", ".join(f"{hits.sum()} by {ways[name]}" for name, hits in right.items())
    logger.info("%d labels were held out; of these were found: %s.", len(out), hits)
    if all(_sure_lead(right["graph"], right[name]) > 0 for name in sources):
        return None, right["graph"].mean()
    learned = smooth(evidence if best == "both" else evidence._replace(guess=unknown), n_parts, trunk, seed)
    lost = np.isin(guess, np.setdiff1d(guess[guess >= 0], learned.shares.argmax(1)))
    learned.shares[lost] = np.eye(n_parts, dtype=learned.shares.dtype)[guess[lost]]
    return learned, right[best].mean()


def _sure_lead(ahead: np.ndarray, behind: np.ndarray) -> float:
    """Of how many more cells (m,) one is right than the other, less a standard error.

    That is the root of the number of cells of which just one is right; one is added, so that none is not certainty.
    """
    gained, lost = (ahead & ~behind).sum(), (behind & ~ahead).sum()
    return gained - lost - (gained + lost + 1) ** 0.5


def smooth(evidence: Evidence, n_parts: int, trunk: Trunk, seed: int = 0, share: float = 1.0) -> Learned:
    """The parts by nets, each asked for the cells whose guess it has not learned.

    A net soon knows by heart where the guess is wrong. So cells are cut in two halves, and a net that learns the guess
    for the one half, and labels of all, speaks for the other. Without a guess, one net speaks for all.

    Parameters
    ----------
    evidence
        What they learn from.
    n_parts
        Number of parts K.
    trunk
        Of the encoder: they go on from its hidden layers.
    seed
        Of halves, heads and minibatches; torch's own stream is left alone.
    share
        Of the usual number of steps, if these are more than the fewest.

    References
    ----------
    Grandvalet and Bengio 2004, Semi-supervised learning by entropy minimization, NeurIPS.
    Miyato, Maeda, Koyama and Ishii 2019, Virtual adversarial training, IEEE TPAMI.
    Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging.
    """
    x, labels, guess, _ = evidence
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(labels)) % 2 if (guess >= 0).any() else np.zeros_like(labels)
    shares = np.empty((len(labels), n_parts), dtype=np.float32)
    for asked in (half == k for k in np.unique(half)):
        net = _learned(evidence._replace(guess=np.where(asked, -1, guess)), n_parts, trunk, rng, share)
        shares[asked] = probabilities(net, x[asked])
    state = {name: value.cpu() for name, value in net.trunk.state_dict().items()}
    return Learned(shares, state)


def _learned(evidence: Evidence, n_parts: int, trunk: Trunk, rng: np.random.Generator, share: float) -> "Net":
    """A net whose loss is the cross-entropy of labels and of the guess, what the worst small change does, and doubt."""
    x, labels, guess, is_count = evidence
    n, known = len(labels), np.flatnonzero(labels >= 0)

    def loss(net: Net) -> Tensor:
        own = rng.choice(known, N_LABELLED if len(known) else 0)
        some = rng.choice(n, min(BATCH_SIZE, n), replace=False)
        cells = x[np.concatenate([own, some])]
        log_p = net(cells)
        doubt = -(log_p[len(own) :].exp() * log_p[len(own) :]).sum(-1).mean()
        found = adversarial(net, net, cells[len(own) :]) + (0.0 if is_count else DOUBT) * doubt
        for p, truth in ((log_p[: len(own)], labels[own]), (log_p[len(own) :], guess[some])):
            if (truth >= 0).any():
                found = found + cross_entropy(p, torch.from_numpy(truth).to(x.device), ignore_index=-1)
        return found

    n_steps = int(np.clip(share * N_EPOCHS * n / BATCH_SIZE, MIN_STEPS, share * MAX_STEPS))
    return trained(x, n_parts, trunk.bare, rng, n_steps, loss)


def trained(
    x: Tensor,
    n_parts: int,
    hidden: Callable[[], Trunk],
    rng: np.random.Generator,
    n_steps: int,
    loss: Callable[["Net"], Tensor],
) -> "Net":
    """A net for log p(y | x), (n, K), averaged over its last steps; half-way the learning rate starts to fall to 0.

    Parameters
    ----------
    x
        (n, g) all cells.
    n_parts
        Number of parts K.
    hidden
        Makes its hidden layers.
    rng
        Of its weights and of the noise in its loss; torch's own stream is left alone.
    n_steps
        How many to take.
    loss
        Of the net, on cells that it draws.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        torch.manual_seed(rng.integers(2**32))
        trunk = hidden()
        net = Net(trunk, nn.Linear(trunk.n_out, n_parts)).to(x.device)
        average = partial(_average, kept=1 - 1 / (WINDOW * n_steps))
        mean = torch.optim.swa_utils.AveragedModel(net, avg_fn=average, use_buffers=True)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / n_steps))
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()
            falling.step()
            mean.update_parameters(net)
    mixed = np.array_split(rng.permutation(len(x)), -(-len(x) // BATCH_SIZE))
    torch.optim.swa_utils.update_bn((x[cells] for cells in mixed), mean)
    return mean.module.eval()


def probabilities(net: nn.Module, x: Tensor) -> np.ndarray:
    """P(y | x) of cells (n, g) by a net, (n, K)."""
    with torch.no_grad():
        return torch.cat([net(cells).exp() for cells in x.split(BATCH_SIZE)]).cpu().numpy()


def adversarial(log_p: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Tensor:
    """Mean KL(p || p(y | x + r)) of cells x (n, g), for that r of `RADIUS` nearest distances that is worst.

    ``log_p`` gives log p(y | x), (n, K), by the module, whose running means take no note of all this; without
    dropout.
    """
    with torch.no_grad():
        apart = torch.cdist(x, x)
        apart.fill_diagonal_(torch.inf)
        radius = RADIUS * apart.amin(1, keepdim=True)

    with _calm(module):
        with torch.no_grad():
            p = log_p(x)

        def changed(r: Tensor) -> Tensor:
            return (p.exp() * (p - log_p(x + r))).sum(-1)

        r = (PROBE * radius * normalize(torch.randn_like(x), dim=-1)).requires_grad_()
        (worst,) = torch.autograd.grad(changed(r).sum(), r)
        return changed(radius * normalize(worst, dim=-1)).mean()


def smoothness(module: ELBOModule, cells: Cells) -> Tensor:
    """The same for a module's responsibilities: what it costs that a small change of a cell changes its component."""

    def log_r(x: Tensor) -> Tensor:
        changed = cells._replace(seen=x)
        return module.prior.log_responsibilities(module.encode(changed), changed)

    return adversarial(log_r, module, dense(cells.seen))


class Net(nn.Module):
    """Log p(y | x), (n, K)."""

    def __init__(self, trunk: Trunk, head: nn.Linear):
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x, x.new_zeros(len(x), 0))).log_softmax(-1)


def _average(mean: Tensor, value: Tensor, n_averaged: Tensor, kept: float) -> Tensor:
    if not mean.is_floating_point():  # a count of steps
        return value
    kept = min(kept, (int(n_averaged) + 1) / (int(n_averaged) + 10))  # the first steps are soon forgotten
    return mean.lerp(value, 1 - kept)


@contextmanager
def _calm(net: nn.Module):
    """No dropout, and batch norm by the minibatch, of which the running means take no note."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm1d)]
    dropouts = [(layer, layer.p) for layer in net.modules() if isinstance(layer, nn.Dropout)]
    for norm in norms:
        norm.track_running_stats = False
    for layer, _ in dropouts:
        layer.p = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for layer, p in dropouts:
            layer.p = p
