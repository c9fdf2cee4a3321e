"""Models without clusters of their own."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from mixvi.model._mixin import Mixin
from mixvi.model._predict import Encoded
from mixvi.model.streaming import blocks
from mixvi.module.cells import Cells


class UnclusteredMixin(Mixin):
    """Abstract: no probabilities to write, no component to draw from."""

    def _see_cells(self) -> None:
        return None

    def _found(self) -> dict:
        return {}

    def _phases(self, max_epochs, n_epochs_pretrain, by_default) -> None:
        return None

    def _cut(self, n_clusters) -> list[str]:
        if n_clusters is not None:
            raise ValueError(
                f"{type(self).__name__} has no clusters, and got n_clusters={n_clusters}; use mixvi.GMVAE."
            )
        return []

    def _encode(self, adata, n_clusters, indices=None, novelty=None) -> Iterator[Encoded]:
        def loc(cells: Cells) -> Tensor:
            return self.module.encode(cells).loc

        for z in blocks(self, loc, adata, indices, None, minified=True):
            yield Encoded(z, z[:, :0], np.zeros(0))

    def _tables(self, n_clusters) -> dict:
        return {}

    def _component_index(self, component) -> list[int]:
        raise ValueError(f"{type(self).__name__} has no components, and got component={component!r}; use mixvi.GMVAE.")
