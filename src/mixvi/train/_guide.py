"""What the neighbour graph said of the training cells, kept at hand while everything is trained together."""

from typing import NamedTuple

import torch
from torch import Tensor


class Guide(NamedTuple):
    """How strongly each of m training cells is pulled to each component; all other cells are not."""

    rows: Tensor  # (m,) rising row numbers of the cells
    weight: Tensor  # (m, K)

    @classmethod
    def to_parts(cls, rows: Tensor, part: Tensor, n_components: int, weight: float) -> "Guide":
        """Each cell to the component of its own part (m,) alone; not at all where that is negative or has none."""
        has_part = (part >= 0) & (part < n_components)
        one_hot = torch.nn.functional.one_hot(part[has_part], n_components)
        return cls(rows[has_part], weight * one_hot.float())

    def of(self, rows: Tensor) -> Tensor:
        """The weights of the cells with the given row numbers (n, 1), in any order: (n, K)."""
        rows = rows.ravel()
        place = torch.searchsorted(self.rows, rows).clamp(max=len(self.rows) - 1)
        return self.weight[place] * (self.rows[place] == rows).unsqueeze(-1)

    def to(self, device: torch.device) -> "Guide":
        """The same on a device."""
        return Guide(self.rows.to(device), self.weight.to(device))
