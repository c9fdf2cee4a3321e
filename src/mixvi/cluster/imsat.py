"""IMSAT: a neural network finds clusters by maximising the mutual information of cells and clusters.

Use it for images and other data that are not counts, if a neighbour graph shows more clusters than you want. The
network does not see the graph, so clusters need not be unions of its communities.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from mixvi.cluster.vat import BATCH_SIZE, MIN_STEPS, N_EPOCHS, adversarial, probabilities, trained

MAX_STEPS_A_START = 1000  # on Fashion-MNIST, starts of 2,000 steps were no better
STARTS = 4  # nets from random weights; the accuracy of one start on Fashion-MNIST ranges from 0.53 to 0.71
INFORMATION = 0.1  # weight of the mutual information against the adversarial loss: lambda of Hu et al. 2017
EVENNESS = 4.0  # weight of the entropy of cluster sizes in the mutual information: mu of Hu et al. 2017
MAX_JUDGED = 10_000  # cells on which starts are compared; a standard error is then 1 % of a standard deviation


def imsat(x: Tensor, n_clusters: int, hidden: Callable[[], nn.Module], seed: int = 0) -> np.ndarray:
    """Probabilities of clusters by the best of four nets: information maximising self-augmented training.

    Each net starts from its own random weights and minimises

        mean_x max_r KL(p(y | x) || p(y | x + r)) + 0.1 (H(y | x) - 4 H(y)),

    with small changes r as in `mixvi.cluster.vat.adversarial`. The net with the smallest loss is the best.

    Parameters
    ----------
    x
        (n, g) input of the nets.
    n_clusters
        Number of clusters K; some may stay empty.
    hidden
        Makes the hidden layers: a module from (n, g) to (n, n_out), with the attribute ``n_out``.
    seed
        Seed of all random draws; torch's global generator keeps its state.

    Returns
    -------
    (n, K) probabilities; rows sum to 1.

    References
    ----------
    Hu, Miyato, Tokui, Matsumoto and Sugiyama 2017, Learning discrete representations via information maximizing
    self-augmented training, ICML.
    Krause, Perona and Gomes 2010, Discriminative clustering by regularized information maximization, NeurIPS.
    """
    rng = np.random.default_rng(seed)
    n_steps = int(np.clip(N_EPOCHS * len(x) / BATCH_SIZE, MIN_STEPS, MAX_STEPS_A_START))
    nets = [trained(x, n_clusters, hidden, rng, n_steps, partial(_loss, x=x, rng=rng)) for _ in range(STARTS)]
    return probabilities(min(nets, key=lambda net: _judged(net, x, seed)), x)


def _loss(net: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
    """What a net minimises, on some of the cells."""
    cells = x[rng.choice(len(x), min(BATCH_SIZE, len(x)), replace=False)]
    log_p = net(cells)
    p, mean = log_p.exp(), log_p.exp().mean(0)
    own, size = -(p * log_p).sum(-1).mean(), -(mean * mean.clamp(min=1e-30).log()).sum()  # H(y | x), H(y)
    return adversarial(net, net, cells) + INFORMATION * (own - EVENNESS * size)


def _judged(net: nn.Module, x: Tensor, seed: int) -> float:
    """The same loss, with the information of all cells."""
    p = probabilities(net, x)
    return _divergence(net, x, seed) + INFORMATION * (entropy(p, axis=1).mean() - EVENNESS * entropy(p.mean(0)))


def _divergence(net: nn.Module, x: Tensor, seed: int) -> float:
    """Adversarial loss on a sample of the cells, the same for each net."""
    some = np.random.default_rng(seed).permutation(len(x))[:MAX_JUDGED]
    batches = np.array_split(some, -(-len(some) // BATCH_SIZE))
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        torch.manual_seed(seed)
        losses = [adversarial(net, net, x[batch]).item() for batch in batches]
    return float(np.average(losses, weights=[len(batch) for batch in batches]))
