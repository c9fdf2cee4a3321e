"""Effects of the conditions on the values of cells. A model with conditions starts from them."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from mixvi.cluster.graph import N_COMPONENTS
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.encoders import Encoder
from mixvi.ops.csr import dense

MAX_SAMPLED = 10_000
MAX_SAMPLED_VALUES = 100_000_000  # in memory at once: 10,000 cells of 10,000 genes
N_GROUPS = 10
N_ALTERNATIONS = 10


class SampledValues(NamedTuple):
    """Values of some cells, from which condition effects are estimated."""

    c: Tensor  # (n, q)
    seen: Tensor  # (n, g) values that the encoders read
    scaled: Tensor  # (n, g) values on the scale of the decoder's mean

    @classmethod
    def at(cls, module: ELBOModule, cells: Cells) -> "SampledValues":
        """Values of a minibatch.

        Parameters
        ----------
        module
            The module that reads them.
        cells
            n cells.

        Returns
        -------
        Dense values.
        """
        return cls(cells.c, dense(cells.seen), module.likelihood.scaled(cells))


def some_cells(n_genes: int) -> int:
    """Number of cells from which effects are estimated."""
    return min(MAX_SAMPLED, max(MAX_SAMPLED_VALUES // n_genes, 1))


def start_from(module: ELBOModule, cells: SampledValues, seed: int = 0) -> None:
    """Start with a latent space in which similar cells of all conditions lie together.

    The bound hardly depends on whether the conditions share one arrangement of the latent space. So the start of
    training matters. The encoders subtract the condition effects from x, and these effects stay fixed. The decoder
    starts with an intercept for each condition.

    Parameters
    ----------
    module
        Untrained module with conditions; it is changed.
    cells
        Values of some training cells.
    seed
        Seed of k-means and of the principal components.
    """
    group = groups(module.likelihood.link(cells.scaled).numpy(), cells.c.numpy(), seed)
    device, c_mean = next(module.parameters()).device, cells.c.mean(0)
    seen, scaled = (torch.as_tensor(effects(x.numpy(), cells.c.numpy(), group)) for x in (cells.seen, cells.scaled))
    for encoder in (part for part in module.modules() if isinstance(part, Encoder)):
        encoder.discount(seen.to(device), c_mean.to(device))
    module.likelihood.add_effects(*(value.to(device) for value in (cells.scaled.mean(0), scaled, c_mean)))


def effects(x: np.ndarray, c: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Slopes of x on c within groups of similar cells. A group with one condition only has no influence.

    One-hot columns sum to 1, so several slopes fit equally well. A small ridge selects those of smallest norm.

    Parameters
    ----------
    x
        (n, g) values.
    c
        (n, q) conditions.
    group
        (n,) group of each cell.

    Returns
    -------
    (q, g) slopes.
    """
    member = np.eye(group.max() + 1, dtype=x.dtype)[group]  # (n, k)
    share = member / np.maximum(member.sum(0), 1)
    c, x = (values - member @ (share.T @ values) for values in (c, x))
    return np.linalg.lstsq(c.T @ c + 1e-6 * len(c) * np.eye(c.shape[1], dtype=c.dtype), c.T @ x, rcond=None)[0]


def groups(x: np.ndarray, c: np.ndarray, seed: int = 0) -> np.ndarray:
    """Groups of similar cells from all conditions, so that effects do not reflect different cell types.

    Two steps alternate: effects are estimated within groups, and k-means groups the values without these effects.

    Parameters
    ----------
    x
        (n, g) values.
    c
        (n, q) conditions.
    seed
        Seed of k-means and of the principal components.

    Returns
    -------
    (n,) group of each cell.
    """
    n_components = min(N_COMPONENTS, *(size - 1 for size in x.shape))
    group = np.zeros(len(x), dtype=int)
    if n_components < 1 or len(x) < 2 * N_GROUPS or (x == x[0]).all():
        return group
    z = PCA(n_components, random_state=seed).fit_transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where many cells are equal there are fewer groups
        for _ in range(N_ALTERNATIONS):
            rest = z - (c - c.mean(0)) @ effects(z, c, group)
            group = KMeans(N_GROUPS, n_init=1, random_state=seed).fit_predict(rest)
    return group
