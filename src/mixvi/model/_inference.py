"""How cells stream through a trained model."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from mixvi.data import CellsDataset, as_positions
from mixvi.model._training import TrainableModel
from mixvi.module.cells import Cells

INFERENCE_BATCH_SIZE = 1024


class InferenceModel(TrainableModel):
    """Abstract: any function of `Cells`, in large blocks, in the order asked for."""

    def _check_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(f"This {type(self).__name__} is not trained yet; call model.train() first.")

    def _collect(
        self,
        of: Callable[[Cells], Tensor],
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> np.ndarray:
        """What ``of`` says of each cell, (n, ...), in the order of ``indices``."""
        return np.concatenate(list(self._blocks(of, adata, indices, batch_size)))

    def _blocks(self, of, adata, indices, batch_size) -> Iterator[np.ndarray]:
        self._check_trained()
        manager = self._registered(adata)
        rows = as_positions(indices, manager.adata.n_obs)
        self.module.eval()
        dataset = CellsDataset(manager, self.device, resident=False)
        batch_size = batch_size or INFERENCE_BATCH_SIZE
        size = dataset.block_size(batch_size)
        for block in (dataset[rows[start : start + size]] for start in range(0, len(rows), size)):
            for cells in self.module.read(block).split(batch_size):
                with torch.inference_mode():  # not around a yield, which would leave the caller in it
                    part = of(cells).cpu().numpy()
                yield part
