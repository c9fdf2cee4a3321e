"""What graph, net or labels said of the training cells, kept at hand while everything is trained together."""

from typing import NamedTuple

import torch
from torch import Tensor


class Guide(NamedTuple):
    """How strongly each of m training cells is pulled to each component; all other cells are not."""

    rows: Tensor  # (m,) rising row numbers of the cells
    weight: Tensor  # (m, K)
    smooth: bool = False  # whether a small change of a cell is to leave its component as it is

    @classmethod
    def to_shares(cls, rows: Tensor, shares: Tensor, weight: float, smooth: bool = False) -> "Guide":
        """Each cell to the components by its shares (m, K); not at all where these are 0.

        A component of fewer cells than the mean pulls harder, by the root of the ratio, so that it is not swallowed.
        """
        some = shares.any(1)
        rows, shares = rows[some], shares[some]
        size = shares.sum(0)  # (K,)
        rare = (size[size > 0].mean() / size.clamp(min=1)).clamp(min=1).sqrt()
        return cls(rows, weight * shares * rare, smooth)

    def of(self, rows: Tensor) -> Tensor:
        """The weights of the cells with the given row numbers (n, 1), in any order: (n, K)."""
        rows = rows.ravel()
        place = torch.searchsorted(self.rows, rows).clamp(max=len(self.rows) - 1)
        return self.weight[place] * (self.rows[place] == rows).unsqueeze(-1)

    def to(self, device: torch.device) -> "Guide":
        """The same on a device."""
        return self._replace(rows=self.rows.to(device), weight=self.weight.to(device))
