"""Guidance: a training term that holds cells to the components of their leaves. It is no part of the bound."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixvi._warnings import warn
from mixvi.module.cells import Cells
from mixvi.ops.csr import split

logger = logging.getLogger(__name__)

TOO_MANY = 0.2  # share of the labelled cells that may leave the clusters of their labels without a warning


class Guide(NamedTuple):
    """Weights of the guidance term for m training cells. All other cells have weight 0."""

    rows: Tensor  # (m,) rising row numbers of the cells
    weight: Tensor  # (m, K) nats
    smooth: bool = False  # whether small changes of a cell must leave its responsibilities unchanged

    @classmethod
    def to_shares(cls, rows: Tensor, shares: Tensor, weight: float, smooth: bool = False) -> "Guide":
        """Guide each cell to the components in proportion to its shares. Cells whose shares are all 0 are left out.

        A component with fewer cells than the mean gets a larger weight: the square root of mean size / its size.
        So large components do not absorb small ones.

        Parameters
        ----------
        rows
            (m,) rising row numbers.
        shares
            (m, K) shares of the cells in the leaves.
        weight
            Guidance, in nats.
        smooth
            Whether training adds the virtual adversarial term.

        Returns
        -------
        The guide of the cells with shares.
        """
        some = shares.any(1)
        rows, shares = rows[some], shares[some]
        size = shares.sum(0)  # (K,)
        rare = (size[size > 0].mean() / size.clamp(min=1)).clamp(min=1).sqrt()
        return cls(rows, weight * shares * rare, smooth)

    def of(self, rows: Tensor) -> Tensor:
        """Weights (n, K) of the cells with row numbers (n, 1), in any order."""
        rows = rows.ravel()
        place = torch.searchsorted(self.rows, rows).clamp(max=len(self.rows) - 1)
        return self.weight[place] * (self.rows[place] == rows).unsqueeze(-1)

    def to(self, device: torch.device) -> "Guide":
        """The same guide on a device."""
        return self._replace(rows=self.rows.to(device), weight=self.weight.to(device))


class Guided(NamedTuple):
    """A minibatch of n cells with its weights of the guidance term."""

    cells: Cells
    guide: Tensor  # (n, K) nats; K = 0 without guidance

    def filled(self) -> "Guided":
        """The same with all matrices dense."""
        return self._replace(cells=self.cells.filled())

    def split(self, n_cells: int) -> Iterator["Guided"]:
        """Minibatches of n_cells; the last may be smaller."""
        yield from map(Guided, self.cells.split(n_cells), split(self.guide, n_cells))


def tell_of_moved(part: np.ndarray, labels: np.ndarray) -> None:
    """Say how many labelled cells are more likely in another cluster than in that of their class.

    Parameters
    ----------
    part
        (n,) the most likely component of each cell. The first components are those of the classes.
    labels
        (n,) class of each cell; -1 if it is unlabelled.
    """
    known = labels >= 0
    moved, labels = part[known] != labels[known], labels[known]
    if not moved.any():
        return
    text = (
        f"{moved.sum():,} of {len(moved):,} labelled cells are more likely in another cluster than that of their class"
    )
    of_class = np.bincount(labels, moved) > np.bincount(labels) / 2
    if moved.mean() <= TOO_MANY and not of_class.any():
        logger.info("%s.", text)
        return
    warn(
        f"{text}. In {of_class.sum()} of the classes these are most cells. mixvi warns if they are more than "
        f"{TOO_MANY:.0%} of all, or most of a class. Check the labels, or make the model with a larger guidance."
    )
