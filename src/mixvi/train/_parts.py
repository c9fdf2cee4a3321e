"""The parts of the training cells that the components of a mixture start from, and that go on guiding the cells."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from torch import Tensor
from torch.nn.functional import pad

from mixvi.classes import FOLDS, shrunken
from mixvi.cluster import neighbor_shares
from mixvi.consensus import MAX_VALUES, agreement, place
from mixvi.module._elbo import Cells, ELBOModule, Layout
from mixvi.module.mixtures import MixturePrior
from mixvi.module.nets import Trunk
from mixvi.module.rows import dense
from mixvi.train._guide import Guide
from mixvi.train._information import informed_shares
from mixvi.train._smooth import Evidence, learn_classes
from mixvi.train._temperature import ENOUGH

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What is known of m training cells once the latent space has taken shape."""

    loc: Tensor  # (m, d) posterior means
    labels: np.ndarray  # (m,) class, -1 where unlabelled
    counts: csr_matrix | None  # (m, g), where they are to be looked at beside the latent space
    values: Tensor | None  # (m, g) what encoders see, if it is not too much
    is_count: bool  # whether they hold counts


def look(
    module: ELBOModule, n_cells: int, ask: Callable[[Callable[[Cells], tuple[Tensor, ...]]], list[Tensor]]
) -> Seen:
    """What is known of training cells; ``ask`` says of each what a function of cells makes of it.

    Counts are looked at where no condition shifts them, counts and values where these are not too many.
    """

    def mean_and_label(cells: Cells) -> tuple[Tensor, ...]:
        return module.encode(cells).loc, cells.label

    loc, label = ask(mean_and_label)
    is_count, counts, values = module.likelihood.support == "count", None, None
    if n_cells * module.layout.n_genes <= MAX_VALUES:
        if is_count and not module.layout.n_conditions:
            counts = csr_matrix(ask(lambda cells: (dense(cells.x),))[0].numpy())
        (values,) = ask(lambda cells: (module.encoder.discounted(dense(cells.seen), cells.c),))
        values = values.to(next(module.parameters()).device)
    return Seen(loc, label.numpy(), counts, values, is_count)


class Parts(NamedTuple):
    """Parts of m cells, classes first, and how far each cell belongs to them."""

    of: np.ndarray  # (m,), -1 for none
    shares: np.ndarray  # (m, K), those that get a component
    trunk: dict[str, Tensor] | None  # hidden layers of a net that learned classes: small changes leave cells in them
    accuracy: float | None  # share of cells that are right, as far as it is known

    def moments(self, loc: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (K, d), total spread (K, d) and share (K,) of the parts: the M-step of a mixture, of posteriors (m, d).

        A class of which no cell is known stands for all that is there.
        """
        parts = [torch.as_tensor(self.of == k) for k in range(self.shares.shape[1])]
        parts = [cells if cells.any() else ~cells for cells in parts]
        spread = [(loc[cells].var(0, correction=0) + variance[cells].mean(0)).sqrt() for cells in parts]
        mean, weight = [loc[cells].mean(0) for cells in parts], [cells.float().mean() for cells in parts]
        return torch.stack(mean), torch.stack(spread), torch.stack(weight)

    def guide(self, rows: np.ndarray, n_room: int, weight: float) -> Guide:
        """What the parts pull cells with these row numbers to, of a mixture with room for n_room components."""
        shares = pad(torch.from_numpy(self.shares).float(), (0, n_room - self.shares.shape[1]))
        return Guide.to_shares(torch.from_numpy(rows[: len(shares)]), shares, weight, self.trunk is not None)


def posterior(module: ELBOModule, cells: Cells) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(z | x, c), (n, d) each, that moments are taken of."""
    qz = module.encode(cells)
    return qz.loc, qz.scale**2


def find_parts(seen: Seen, layout: Layout, prior: MixturePrior, trunk: Trunk, guided: bool, seed: int) -> Parts:
    """Parts by neighbour graphs, or by nets unless these clearly miss more held-out labels; labelled cells as labelled.

    Without labels, and of what is not counts, a net has its say where the graph shows more parts than are wanted
    (`mixvi.train._information.informed_shares`).

    Parameters
    ----------
    seen
        The cells.
    layout
        How many classes some cells are labelled with; where there are conditions, a net from labels alone is not asked,
        as it need not see across these.
    prior
        How many parts are wanted, and how many of them get a component.
    trunk
        Hidden layers of the encoder; nets have the like, and those that learn classes go on from them.
    guided
        Whether the parts are to guide the cells; only then, and where there are labels, are nets asked.
    seed
        Of all that is random.
    """
    logger.info("Placing clusters on a neighbour graph: half a minute the first time, two for many cells.")
    n_threads = torch.get_num_threads()
    values = None if seen.values is None else seen.values.cpu().numpy()
    part, graph, others, share_found = place(
        seen.loc.numpy(), seen.counts, seen.labels, layout.n_labels, prior.n_wanted, seed, values
    )
    torch.set_num_threads(n_threads)  # numba, below scanpy, sets OpenMP's for the whole process
    n_parts = max(part.max() + 1, layout.n_labels)
    if prior.n_wanted is not None and n_parts < prior.n_wanted:
        logger.warning("Found %d clusters, %d were asked for: the cells do not part further.", n_parts, prior.n_wanted)
    if n_parts > prior.n_room:
        logger.warning("Found %d clusters; the %d largest get a component.", n_parts, prior.n_room)
    shares, learned, state, accuracy = neighbor_shares(part, graph, n_parts), None, None, None
    if layout.n_labels:
        evidence = Evidence(seen.values if guided else None, seen.labels, part, seen.is_count)
        found, accuracy = learn_classes(evidence, graph, layout.n_labels, trunk, not layout.n_conditions, seed)
        learned, state = (None, None) if found is None else found
    elif prior.n_wanted is not None and seen.values is not None and not seen.is_count:
        learned = informed_shares(seen.values, part, graph, trunk.hidden, seed)
    if learned is not None:
        others = [*others, part.copy()]
        reached = part >= 0
        part[reached], shares[reached] = learned[reached].argmax(1), learned[reached]
    known = seen.labels >= 0
    if not layout.n_labels:
        accuracy = agreement(part, others)
    elif known.sum() < FOLDS * ENOUGH:
        accuracy = share_found  # by the graph, of all labels: a fifth of so few would be luck
    part[known], shares[known] = seen.labels[known], np.eye(n_parts)[seen.labels[known]]
    return Parts(part, shares[:, : prior.n_room], state, accuracy)


def report_classes(part: np.ndarray, labels: np.ndarray, manager: AnnDataManager) -> None:
    """Say how many labels clusters contradict, and which classes hardly any cell is in (`mixvi.classes.shrunken`)."""
    if REGISTRY_KEYS.LABELS_KEY not in manager.data_registry:
        return
    names = manager.get_state_registry(REGISTRY_KEYS.LABELS_KEY).categorical_mapping[:-1]
    known = labels >= 0
    if moved := (part[known] != labels[known]).sum():
        logger.info("%d of %d labelled cells are likelier in another cluster than their class.", moved, known.sum())
    if found := shrunken(part, labels, len(names)):
        sizes = {str(names[k]): size for k, size in found.items()}
        logger.warning("Hardly any cells, for their labels, are in the classes %s: label more of them.", sizes)
