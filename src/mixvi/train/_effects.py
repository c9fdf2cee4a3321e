"""What conditions do to the values of cells: where a model that sees conditions starts from."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.encoders import Encoder
from mixvi.ops.csr import dense

MAX_CELLS = 10_000
MAX_VALUES = 100_000_000  # looked at together: 10,000 cells of 10,000 genes
N_COMPONENTS = 30
N_GROUPS = 10
N_ROUNDS = 10


class Looked(NamedTuple):
    """Some cells, as the effects of conditions are read off them."""

    c: Tensor  # (n, q)
    seen: Tensor  # (n, g) by encoders
    scaled: Tensor  # (n, g) on the scale of the decoder's mean

    @classmethod
    def at(cls, module: ELBOModule, cells: Cells) -> "Looked":
        """What these cells show."""
        return cls(cells.c, dense(cells.seen), module.likelihood.scaled(cells))


def some_cells(n_genes: int) -> int:
    """How many cells of so many genes are looked at."""
    return min(MAX_CELLS, max(MAX_VALUES // n_genes, 1))


def start_from(module: ELBOModule, cells: Looked, seed: int = 0) -> None:
    """Begin with a latent space in which like cells of all conditions coincide.

    A conditional model may give each condition a latent space of its own arrangement: the bound hardly minds, and what
    training finds depends on where it starts. So encoders see values less what the conditions add to them, for good,
    and the decoder starts with an intercept for each condition. Continuous covariates are standardised from here on.
    """
    cells = _standardise(module, cells)
    group = groups(module.likelihood.link(cells.scaled).numpy(), cells.c.numpy(), seed)
    device, c_mean = next(module.parameters()).device, cells.c.mean(0)
    seen, scaled = (torch.as_tensor(effects(x.numpy(), cells.c.numpy(), group)) for x in (cells.seen, cells.scaled))
    for encoder in (part for part in module.modules() if isinstance(part, Encoder)):
        encoder.discount(seen.to(device), c_mean.to(device))
    module.likelihood.add_effects(*(value.to(device) for value in (cells.scaled.mean(0), scaled, c_mean)))


def effects(x: np.ndarray, c: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Slopes (q, g) of x (n, g) on c (n, q) within groups (n,): a group of one condition alone has no say.

    Of all that fit as well, those of smallest norm: one-hot columns sum to 1.
    """
    member = np.eye(group.max() + 1, dtype=x.dtype)[group]  # (n, k)
    share = member / np.maximum(member.sum(0), 1)
    c, x = (values - member @ (share.T @ values) for values in (c, x))
    return np.linalg.lstsq(c.T @ c + 1e-6 * len(c) * np.eye(c.shape[1], dtype=c.dtype), c.T @ x, rcond=None)[0]


def groups(x: np.ndarray, c: np.ndarray, seed: int = 0) -> np.ndarray:
    """Groups (n,) of like cells from all conditions, so that what differs between conditions is not who is in them.

    In turn, effects are taken within groups, and groups are k-means of the values (n, g) less the effects.
    """
    n_components = min(N_COMPONENTS, *(size - 1 for size in x.shape))
    group = np.zeros(len(x), dtype=int)
    if n_components < 1 or len(x) < 2 * N_GROUPS:
        return group
    z = PCA(n_components, random_state=seed).fit_transform(x)
    for _ in range(N_ROUNDS):
        rest = z - (c - c.mean(0)) @ effects(z, c, group)
        group = KMeans(N_GROUPS, n_init=1, random_state=seed).fit_predict(rest)
    return group


@torch.no_grad()
def _standardise(module: ELBOModule, cells: Looked) -> Looked:
    if module.continuous is None:
        return cells
    k = module.layout.n_continuous
    one_hot, raw = cells.c[:, :-k], cells.c[:, -k:]
    mean, scale = raw.mean(0), raw.std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    module.continuous.copy_(torch.stack([mean, scale]))
    return cells._replace(c=torch.cat([one_hot, (raw - mean) / scale], -1))
