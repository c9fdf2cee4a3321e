"""A minibatch of cells, and the registered columns. Letters: n cells, g genes, d latent, l classes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from mixvi.ops.csr import dense, split, totals


class Layout(NamedTuple):
    """Number and kind of the registered columns. A module needs no more to be built."""

    n_genes: int
    batch_levels: int = 0  # number of batches; 0 if no batch is registered
    covariate_levels: tuple[int, ...] = ()  # number of levels of each further categorical covariate
    n_continuous: int = 0
    n_labels: int = 0
    size_factor: bool = False  # whether the user registered library sizes

    @property
    def n_conditions(self) -> int:
        """Width q of the conditions, which are one-hot columns and continuous covariates."""
        return self.batch_levels + sum(self.covariate_levels) + self.n_continuous

    def without_conditions(self) -> "Layout":
        """The same without conditions, for a part that does not use c."""
        return self._replace(batch_levels=0, covariate_levels=(), n_continuous=0)


class Cells(NamedTuple):
    """A minibatch of n cells. Matrices with genes may be CSR (`mixvi.ops.csr`)."""

    x: Tensor  # (n, g) registered values, for the likelihood
    seen: Tensor  # (n, g) the values that the encoders read
    library: Tensor  # (n, 1) library size: total count, or the registered size factor
    c: Tensor  # (n, q) one-hot batch and covariates, then standardised continuous covariates; q >= 0
    y: Tensor  # (n, l) one-hot label; zeros if the cell is unlabelled; l >= 0
    stored: Tensor  # (n, 2 d) mean and scale of q(z | x, c) of minified cells; (n, 0) of others

    @property
    def label(self) -> Tensor:
        """(n,) class of each cell; -1 if it is unlabelled."""
        return pad(self.y, (1, 0), value=0.5).argmax(-1) - 1

    def filled(self) -> "Cells":
        """The same with all matrices dense."""
        x = dense(self.x)
        return self._replace(x=x, seen=x if self.seen is self.x else dense(self.seen))

    def split(self, n_cells: int) -> Iterator["Cells"]:
        """Minibatches of n_cells; the last may be smaller."""
        yield from (Cells(*parts) for parts in zip(*(split(values, n_cells) for values in self), strict=True))


def one_hot_columns(index: Tensor, levels: int, like: Tensor) -> Tensor:
    """One-hot columns of an index.

    Parameters
    ----------
    index
        (n, 1) level of each cell, numbered from 0.
    levels
        Number of levels.
    like
        Tensor of the dtype and device to give.

    Returns
    -------
    (n, levels) zeros and ones.
    """
    return one_hot(index.squeeze(-1).long(), levels).to(like)


class Standardised(nn.Module):
    """Continuous covariates with mean 0 and variance 1 over the training cells.

    It computes in double precision, because covariates may be far from 0, such as times in seconds.

    Parameters
    ----------
    n_continuous
        Number k of the covariates.
    """

    moments: Tensor  # (3, k) mean, what single precision leaves out of it, and scale

    def __init__(self, n_continuous: int):
        super().__init__()
        self.register_buffer("moments", torch.tensor([[0.0], [0.0], [1.0]]).repeat(1, n_continuous))

    def fit(self, values: Tensor) -> None:
        """Take mean and scale of the training cells, (m, k) in double precision."""
        mean, scale = values.mean(0), values.std(0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.moments.copy_(torch.stack([mean, mean - mean.float(), scale]))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise covariates (n, k)."""
        mean, rest, scale = self.moments.double()
        return (values - mean - rest) / scale


def read_cells(
    tensors: dict[str, Tensor], layout: Layout, continuous: Standardised | None, prepare: Callable[[Tensor], Tensor]
) -> Cells:
    """Convert the tensors of the loader to `Cells`.

    Parameters
    ----------
    tensors
        Tensors of n cells, under the names of scvi-tools.
    layout
        What is registered.
    continuous
        Standardises the continuous covariates, if there are any.
    prepare
        Function from x (n, g) to the values (n, g) that the encoders read.
    """
    x, library = tensors[REGISTRY_KEYS.X_KEY], tensors.get(REGISTRY_KEYS.SIZE_FACTOR_KEY)
    nothing = torch.zeros(len(x), 0, dtype=x.dtype, device=x.device)
    conditions = [nothing]  # (n, 0), so that q = 0 is no special case
    if layout.batch_levels:
        conditions.append(one_hot_columns(tensors[REGISTRY_KEYS.BATCH_KEY], layout.batch_levels, nothing))
    for i, levels in enumerate(layout.covariate_levels):
        conditions.append(one_hot_columns(tensors[REGISTRY_KEYS.CAT_COVS_KEY][:, [i]], levels, nothing))
    if continuous is not None:
        conditions.append(continuous(tensors[REGISTRY_KEYS.CONT_COVS_KEY]).to(nothing))
    y = nothing
    if layout.n_labels:  # the last category is unlabelled and has no column
        y = one_hot_columns(tensors[REGISTRY_KEYS.LABELS_KEY], layout.n_labels + 1, nothing)[:, :-1]
    stored = nothing
    if REGISTRY_KEYS.LATENT_QZM_KEY in tensors:  # minified cells
        stored = torch.cat([tensors[REGISTRY_KEYS.LATENT_QZM_KEY], tensors[REGISTRY_KEYS.LATENT_QZV_KEY].sqrt()], 1)
        library = tensors[REGISTRY_KEYS.OBSERVED_LIB_SIZE] if library is None else library
    return Cells(
        x=x,
        seen=prepare(x),
        library=totals(x) if library is None else library.to(x.dtype),
        c=torch.cat(conditions, dim=-1),
        y=y,
        stored=stored,
    )
