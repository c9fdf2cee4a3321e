"""Virtual adversarial training: nets learn classes of cells from some labels, a guess, or both.

The worst small change of a cell must not change its class, so that borders between classes lie where cells are few.
"""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mixvi.cluster.label_spreading import held_out

logger = logging.getLogger(__name__)

BATCH_SIZE = 256  # cells of a step; a change has the length of the distance to the nearest of them, times RADIUS
N_LABELLED = 128  # labelled cells drawn in addition, so that every step has labels even if they are few
N_EPOCHS = 20  # passes over the cells, within the two limits below
MIN_STEPS = 500  # 20 epochs of 6,400 cells; fewer cells need as many steps
MAX_STEPS = 4700  # 20 epochs of 60,000 images; Fashion-MNIST gained nothing from 2,800 steps on (0.870 and 0.870)
TRIAL = 0.3  # share of the steps in a trial on held-out labels, which only compares two nets
LEARNING_RATE = 1e-3  # Adam's default
WINDOW = 0.1  # share of the steps over which weights are averaged; accuracy on images rose by 0.001 to 0.015
RADIUS = 0.25  # length of a change: a quarter as in Hu et al. 2017; MNIST had 0.987 with it and 0.984 with 0.35
PROBE = 0.1  # share of the radius at which the gradient is taken: small, but above rounding errors
ENTROPY = 0.5  # weight of the entropy of single cells; MNIST with 5 % of its labels had 0.985 with it, 0.980 without


class Learned(NamedTuple):
    """Result of nets trained on the K parts of n cells."""

    shares: np.ndarray  # (n, K) probabilities
    state: dict[str, Tensor]  # state_dict of the hidden layers of the last net, on the CPU
    accuracy: float | None  # share of held-out labels found in the trial; None if none could be held out


def learn_classes(
    x: Tensor,
    labels: np.ndarray,
    guess: np.ndarray,
    n_classes: int,
    hidden: Callable[[], nn.Module],
    *,
    is_count: bool,
    guess_of: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
) -> Learned:
    """Probabilities of the classes of all cells, by nets trained on labels with or without a guess.

    A guess helps with few labels and harms with many. So one fifth of the labels is held out for a trial of nets with
    and without the guess. The better one is trained again on all labels; in a tie, the one with the guess. If there are
    parts beyond the classes, or if no label can be held out, the guess is always used.

    Parameters
    ----------
    x
        (n, g) input of the nets.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    guess
        (n,) guessed part of each cell, -1 where there is none. Numbers from ``n_classes`` on are new parts.
    n_classes
        Number of classes.
    hidden
        Makes the hidden layers: a module from (n, g) to (n, n_out), with the attribute ``n_out``.
    is_count
        Whether ``x`` comes from counts. Then the loss has no entropy of single cells, because cell types have no sharp
        borders. With it, 10x PBMC had an accuracy of 0.84; without it, 0.885.
    guess_of
        Makes the guess from labels (n,) without the held-out ones. ``None`` takes ``guess`` without held-out cells.
    seed
        Seed of all random draws; torch's global generator keeps its state.

    Returns
    -------
    Shares (n, K) of classes and new parts. A part of the guess to which the nets assign no cell keeps its cells.
    """
    n_parts = max(guess.max() + 1, n_classes)
    fit = partial(cross_fit, x, hidden=hidden, is_count=is_count, seed=seed)
    none = np.full_like(guess, -1)
    with_guess, accuracy = True, None
    if folds := held_out(labels, seed):
        rest = labels.copy()
        rest[folds[0]] = -1
        blind = np.where(rest == labels, guess, -1) if guess_of is None else guess_of(rest)
        sources = [blind, none] if n_parts == n_classes else [blind]  # labels alone do not know new parts
        with_guess, accuracy = _trial(fit, rest, sources, max(n_parts, blind.max() + 1), folds[0], labels[folds[0]])
    shares, state = fit(labels, guess if with_guess else none, n_parts)
    lost = np.isin(guess, np.setdiff1d(guess[guess >= 0], shares.argmax(1)))
    shares[lost] = np.eye(n_parts, dtype=shares.dtype)[guess[lost]]
    return Learned(shares, state, accuracy)


def _trial(
    fit: Callable, rest: np.ndarray, sources: list[np.ndarray], n_parts: int, out: np.ndarray, truth: np.ndarray
) -> tuple[bool, float]:
    """Whether no source finds more held-out labels ``truth`` (m,) than the first, and the largest share found."""
    found = [fit(rest, source, n_parts, share=TRIAL)[0][out].argmax(1) for source in sources]
    right = [float((classes == truth).mean()) for classes in found]
    shares = " and ".join(f"{share:.3f} {way}" for share, way in zip(right, ("with", "without"), strict=False))
    logger.info("Share of the %d held-out labels that the nets predict correctly: %s a guess.", len(out), shares)
    return right[0] == max(right), max(right)


def cross_fit(
    x: Tensor,
    labels: np.ndarray,
    guess: np.ndarray,
    n_parts: int,
    *,
    hidden: Callable[[], nn.Module],
    is_count: bool,
    seed: int = 0,
    share: float = 1.0,
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Probabilities by cross-fitting: each of two nets predicts the half of the cells whose guess it has not seen.

    A net would memorise a wrong guess. Both nets are trained on all labels. Without a guess there is one net.

    Parameters
    ----------
    x, labels, guess, hidden, is_count, seed
        As in `learn_classes`.
    n_parts
        Number of parts K: classes and new parts.
    share
        Share of the usual number of steps, above 0 and at most 1.

    Returns
    -------
    (n, K) probabilities, and the state of the hidden layers of the last net, on the CPU.
    """
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(labels)) % 2 if (guess >= 0).any() else np.zeros_like(labels)
    n_steps = int(np.clip(share * N_EPOCHS * len(labels) / BATCH_SIZE, MIN_STEPS, share * MAX_STEPS))
    shares = np.empty((len(labels), n_parts), dtype=np.float32)
    for asked in (half == k for k in np.unique(half)):
        loss = partial(_loss, x=x, labels=labels, guess=np.where(asked, -1, guess), is_count=is_count, rng=rng)
        net = trained(x, n_parts, hidden, rng, n_steps, loss)
        shares[asked] = probabilities(net, x[asked])
    return shares, {name: value.cpu() for name, value in net.hidden.state_dict().items()}


def _loss(
    net: nn.Module, x: Tensor, labels: np.ndarray, guess: np.ndarray, is_count: bool, rng: np.random.Generator
) -> Tensor:
    """Cross-entropy of labels and of the guess, the adversarial divergence, and the entropy (Grandvalet 2004)."""
    known = np.flatnonzero(labels >= 0)
    own = rng.choice(known, N_LABELLED if len(known) else 0)
    some = rng.choice(len(x), min(BATCH_SIZE, len(x)), replace=False)
    cells = x[np.concatenate([own, some])]
    log_p = net(cells)
    log_own, log_some = log_p[: len(own)], log_p[len(own) :]
    loss = adversarial(net, net, cells[len(own) :])
    if not is_count:
        loss = loss - ENTROPY * (log_some.exp() * log_some).sum(-1).mean()
    for log_q, truth in ((log_own, labels[own]), (log_some, guess[some])):
        if (truth >= 0).any():
            target = torch.as_tensor(truth, dtype=torch.int64, device=x.device)
            loss = loss + cross_entropy(log_q, target, ignore_index=-1)
    return loss


def adversarial(log_p: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Tensor:
    """Virtual adversarial loss: mean KL(p(y | x) || p(y | x + r)) for the worst small change r of each cell.

    The length of r is a quarter of the distance to the nearest other cell in x. A power iteration finds its direction.

    Parameters
    ----------
    log_p
        Function from (n, g) cells to (n, K) log p(y | x).
    module
        The net within ``log_p``. Its dropout is off here, and its batch norms do not record the changed cells.
    x
        (n, g) at least two cells.

    References
    ----------
    Miyato, Maeda, Koyama and Ishii 2019, Virtual adversarial training, IEEE TPAMI.
    Hu, Miyato, Tokui, Matsumoto and Sugiyama 2017, Learning discrete representations via information maximizing
    self-augmented training, ICML. It gives each cell its own radius.
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


class Net(nn.Module):
    """Hidden layers, a linear head and log softmax."""

    def __init__(self, hidden: nn.Module, n_parts: int):
        super().__init__()
        self.hidden, self.head = hidden, nn.Linear(hidden.n_out, n_parts)  # type: ignore[arg-type]  # any attribute

    def forward(self, x: Tensor) -> Tensor:
        """Log p(y | x), from (n, g) to (n, K)."""
        return self.head(self.hidden(x)).log_softmax(-1)


def trained(
    x: Tensor,
    n_parts: int,
    hidden: Callable[[], nn.Module],
    rng: np.random.Generator,
    n_steps: int,
    loss: Callable[[Net], Tensor],
) -> Net:
    """A net whose weights are averaged over its last steps (Polyak 1992), in evaluation mode.

    Adam's learning rate is constant for the first half of the steps and then falls to 0.

    Parameters
    ----------
    x
        (n, g) all cells.
    n_parts
        Number of parts K.
    hidden
        Makes the hidden layers, as in `learn_classes`.
    rng
        Generator of all random draws; torch's global generator keeps its state.
    n_steps
        Number of steps.
    loss
        Loss of a net, on cells that the function draws.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        torch.manual_seed(rng.integers(2**32))
        net = Net(hidden(), n_parts).to(x.device)
        average = partial(_average, kept=1 - 1 / (WINDOW * n_steps))
        mean = torch.optim.swa_utils.AveragedModel(net, avg_fn=average, use_buffers=True)
        optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / n_steps))
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()
            falling.step()
            mean.update_parameters(net)
        mixed = np.array_split(rng.permutation(len(x)), -(-len(x) // BATCH_SIZE))
        torch.optim.swa_utils.update_bn((x[cells] for cells in mixed), mean)
    return mean.module.eval()  # type: ignore[return-value]  # of the class of the net


@torch.no_grad()
def probabilities(net: nn.Module, x: Tensor) -> np.ndarray:
    """Probabilities p(y | x) of parts, (n, K).

    Parameters
    ----------
    net
        Net that gives log p(y | x).
    x
        (n, g) cells.
    """
    return torch.cat([net(cells).exp() for cells in x.split(BATCH_SIZE)]).cpu().numpy()


def _average(mean: Tensor, value: Tensor, n_averaged: Tensor, kept: float) -> Tensor:
    """Exponential moving average, over fewer steps at the start, as in TensorFlow."""
    if not mean.is_floating_point():  # batch norm's count of steps
        return value
    kept = min(kept, (int(n_averaged) + 1) / (int(n_averaged) + 10))
    return mean.lerp(value, 1 - kept)


@contextmanager
def _calm(module: nn.Module):
    """No dropout; batch norms use the moments of the minibatch and do not record them."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d)]
    dropouts = [(layer, layer.p) for layer in module.modules() if isinstance(layer, nn.Dropout)]
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
