"""A minibatch of cells, and what is registered of them, as values. Letters are those of `mixvi.module`."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import pad

from mixvi.ops.csr import dense, split


class Layout(NamedTuple):
    """What is registered: all a module has to know of the data before it sees a cell."""

    n_genes: int
    batch_levels: int = 0  # levels of the batch; 0 when there is none
    covariate_levels: tuple[int, ...] = ()  # levels of each further categorical covariate
    n_continuous: int = 0
    n_labels: int = 0
    size_factor: bool = False  # library sizes come from the user, not from the counts

    @property
    def n_conditions(self) -> int:
        """Width q of the conditions."""
        return self.batch_levels + sum(self.covariate_levels) + self.n_continuous

    def without_conditions(self) -> "Layout":
        """The same, for a part that does not see c."""
        return self._replace(batch_levels=0, covariate_levels=(), n_continuous=0)


class Cells(NamedTuple):
    """A minibatch of n cells. Matrices with genes may be CSR (`mixvi.ops.csr`)."""

    x: Tensor  # (n, g) as registered: what the likelihood scores
    seen: Tensor  # (n, g) what the encoders see of it
    library: Tensor  # (n, 1) total count, or the registered size factor
    c: Tensor  # (n, q) one-hot batch and covariates, then standardised continuous ones; q >= 0
    y: Tensor  # (n, l) one-hot label, a row of zeros where unlabelled; l >= 0
    guide: Tensor  # (n, k) how strongly training pulls the cell to each component; k >= 0

    @property
    def label(self) -> Tensor:
        """(n,) class of each cell, -1 where it is unlabelled."""
        return pad(self.y, (1, 0), value=0.5).argmax(-1) - 1

    def filled(self) -> "Cells":
        """The same with all matrices dense."""
        x = dense(self.x)
        return self._replace(x=x, seen=x if self.seen is self.x else dense(self.seen))

    def split(self, n_cells: int) -> Iterator["Cells"]:
        """Minibatches of n_cells; the last may be smaller."""
        yield from (Cells(*parts) for parts in zip(*(split(values, n_cells) for values in self), strict=True))
