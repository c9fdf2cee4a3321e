"""Parts that say most about the cells, where a neighbour graph shows more parts than are wanted.

Which of its parts belong together is then not in the graph: two kinds of bags may lie further apart than a coat and a
dress. A net that tells as much as it can of the cells, in parts used evenly and without cutting where a small change of
a cell would put it elsewhere, draws its own borders.
"""

import logging
from functools import partial

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.stats import entropy
from torch import Tensor, nn

from mixvi.cluster import merge, modularity, neighbor_graph, partition
from mixvi.consensus import MAX_JUDGED, MIN_CELLS, principal_components
from mixvi.module.nets import Hidden, Trunk
from mixvi.train._smooth import BATCH_SIZE, adversarial, probabilities, trained

logger = logging.getLogger(__name__)

N_EPOCHS, MIN_STEPS, MAX_STEPS = 20, 500, 1000
STARTS = 4  # nets that are tried
INFORMATION, EVENNESS = 0.1, 4.0  # weights of the information, and in it of the entropy of the parts, by the paper


def informed_shares(x: Tensor, part: np.ndarray, graph: csr_matrix, hidden: Hidden, seed: int = 0) -> np.ndarray | None:
    """Shares (n, K) of as many parts as there are, by a net that was not told of them; None leaves it at these.

    It is asked only if the graph shows more parts than these (communities at resolution 1, merged while two of them
    hang together), and taken if its parts have the higher modularity in the neighbour graph of principal components of
    the cells, in which no model has had a hand.

    Parameters
    ----------
    x
        (n, g) what encoders see.
    part
        (n,) part of each cell.
    graph
        (n, n) the neighbour graph they were found on.
    hidden
        Hidden layers of the net.
    seed
        Of all that is random.
    """
    n_parts = part.max() + 1
    if n_parts < 2 or len(x) < MIN_CELLS or merge(partition(graph, seed=seed), graph).max() < n_parts:
        return None
    logger.info("The graph shows more clusters than are wanted; a net looks for those that say most: some minutes.")
    shares = informed(x, n_parts, hidden, seed)
    found = shares.argmax(1)
    if len(np.unique(found)) < n_parts:
        return None
    n_threads = torch.get_num_threads()
    judge = neighbor_graph(principal_components(x.cpu().numpy(), seed), seed)
    torch.set_num_threads(n_threads)  # numba, below scanpy, sets OpenMP's for the whole process
    return shares if modularity(found, judge) > modularity(part, judge) else None


def informed(x: Tensor, n_parts: int, hidden: Hidden, seed: int = 0) -> np.ndarray:
    """Probabilities (n, K) by the best of several nets, each from its own start; none knows of any part.

    What each makes small, and what decides between them, is

        mean_x max_r KL(p(y | x) || p(y | x + r)) + 0.1 (H(y | x) - 4 H(y)),

    with small changes r as in `mixvi.train._smooth.adversarial`.

    References
    ----------
    Krause, Perona and Gomes 2010, Discriminative clustering by regularized information maximization, NeurIPS.
    Hu, Miyato, Tokui, Matsumoto and Sugiyama 2017, Learning discrete representations via information maximizing
    self-augmented training, ICML.
    """
    rng = np.random.default_rng(seed)

    def loss(net: nn.Module) -> Tensor:
        cells = x[rng.choice(len(x), min(BATCH_SIZE, len(x)), replace=False)]
        log_p = net(cells)
        p, mean = log_p.exp(), log_p.exp().mean(0)
        blur, spread = -(p * log_p).sum(-1).mean(), -(mean * mean.clamp(min=1e-30).log()).sum()
        return adversarial(net, net, cells) + INFORMATION * (blur - EVENNESS * spread)

    trunk = partial(Trunk, x.shape[1], 0, hidden._replace(dropout_rate=0.0))
    n_steps = int(np.clip(N_EPOCHS * len(x) / BATCH_SIZE, MIN_STEPS, MAX_STEPS))
    tried = []
    for _ in range(STARTS):
        net = trained(x, n_parts, trunk, rng, n_steps, loss)
        p = probabilities(net, x)
        information = entropy(p, axis=1).mean() - EVENNESS * entropy(p.mean(0))
        tried.append((_change(net, x, seed) + INFORMATION * information, p))
    return min(tried, key=lambda each: each[0])[1]


def _change(net: nn.Module, x: Tensor, seed: int) -> float:
    """What the worst small change does to the parts of some of the cells, the same for each net."""
    some = np.random.default_rng(seed).permutation(len(x))[:MAX_JUDGED]
    batches = np.array_split(some, -(-len(some) // BATCH_SIZE))
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        torch.manual_seed(seed)
        return float(
            np.average([adversarial(net, net, x[b]).item() for b in batches], weights=[len(b) for b in batches])
        )
