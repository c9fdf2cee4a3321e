"""Loading of cells to the device, in blocks of many minibatches."""

import logging
from typing import Any

import numpy as np
import psutil
import torch
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import DataSplitter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mixvi.data._labels import UnusedField
from mixvi.data._matrix import DeviceMatrix, HostMatrix, n_bytes
from mixvi.data._sampler import BlockSampler, Shuffled
from mixvi.data._zarr import ZarrMatrix

logger = logging.getLogger(__name__)

CAT = REGISTRY_KEYS.CAT_COVS_KEY
BLOCK_CELLS = 16_384
NEIGHBOURS = 64  # consecutive cells of a file that are read together, because single cells are slow
BLOCK_VALUES = 32_000_000  # stored values a block may have: 128 MB as float32
GPU_BLOCK_CELLS, GPU_BLOCK_VALUES = 131_072, 64_000_000  # for cells on a GPU, where a block costs as much as many steps


class CellsDataset(Dataset):
    """Registered cells: ``dataset[rows]`` gives tensors under scvi-tools' names, and the row numbers.

    Parameters
    ----------
    manager
        Manager of the registered AnnData.
    device
        Device of the tensors.
    resident
        Whether to read a file into memory, and to copy all cells to a GPU. Otherwise cells come block by block.
    """

    def __init__(self, manager: AnnDataManager, device: torch.device, resident: bool):
        matrix = HostMatrix(manager.get_from_registry(REGISTRY_KEYS.X_KEY), in_memory=resident)
        self.density, self.n_genes, self.is_backed = matrix.density, matrix.n_genes, matrix.is_backed
        self.n_bytes = n_bytes(matrix)
        in_covariates = manager.get_state_registry(CAT).n_cats_per_key if CAT in manager.data_registry else ()
        unused = {field.registry_key for field in manager.fields if isinstance(field, UnusedField)}
        used = {REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY} - unused
        self.n_levels = sum(in_covariates) + sum(manager.summary_stats.get(f"n_{name}", 0) for name in used)
        self.device = device
        self._matrix = DeviceMatrix(matrix, device) if resident and device.type != "cpu" else matrix
        self._columns = {
            key: _column(manager.get_from_registry(key), precise=key == REGISTRY_KEYS.CONT_COVS_KEY).to(device)
            for key in manager.data_registry
            if key not in {REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.MINIFY_TYPE_KEY, *unused}
        }

    def __getitem__(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = torch.from_numpy(rows).to(self.device)
        columns = {key: values[index] for key, values in self._columns.items()}
        columns[REGISTRY_KEYS.INDICES_KEY] = index.unsqueeze(-1)
        return {REGISTRY_KEYS.X_KEY: self._matrix.rows(rows).to(self.device), **columns}

    def column(self, key: str, rows: np.ndarray) -> Tensor:
        """Codes or numbers (m, k) of some cells, under one of scvi-tools' names.

        Parameters
        ----------
        key
            Such as ``scvi.REGISTRY_KEYS.CONT_COVS_KEY``.
        rows
            (m,) row numbers.
        """
        return self._columns[key][torch.from_numpy(rows).to(self.device)]

    def block_size(self, batch_size: int) -> int:
        """Number of cells in a block: a multiple of ``batch_size`` that takes little memory."""
        values = self.n_genes * min(2 * self.density, 1) + 2 * self.n_levels + 1
        n_cells = min(BLOCK_CELLS, BLOCK_VALUES / values)
        if isinstance(self._matrix, DeviceMatrix):
            n_cells = min(GPU_BLOCK_CELLS, GPU_BLOCK_VALUES / values)
        return batch_size * max(int(n_cells) // batch_size, 1)


def is_resident(manager: AnnDataManager, device: torch.device, data_path: str) -> bool:
    """Whether all cells stay in the device's memory; otherwise they come block by block.

    Parameters
    ----------
    manager
        Manager of the registered AnnData.
    device
        Device of the model.
    data_path
        ``"resident"`` means yes, ``"stream"`` no. ``"auto"`` means yes if the cells take less than half of the free
        memory and `from_zarr` did not open them.
    """
    if data_path != "auto":
        return data_path == "resident"
    values = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    if isinstance(values, ZarrMatrix):
        return False
    free = psutil.virtual_memory().available
    matrix = HostMatrix(values, in_memory=False)
    if device.type != "cpu":  # a file passes through the host's memory
        on_device = torch.cuda.mem_get_info(device)[0]
        free = min(free, on_device) if matrix.is_backed else on_device
    return n_bytes(matrix) < free / 2


class CellsSplitter(DataSplitter):
    """scvi-tools' split into training, validation and test cells, in blocks.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    batch_size
        Number of cells in a minibatch.
    data_path
        ``"resident"``, ``"stream"`` or ``"auto"``, as in ``is_resident``.
    **kwargs
        Arguments of :class:`scvi.dataloaders.DataSplitter`.
    """

    train_idx: np.ndarray
    val_idx: np.ndarray
    test_idx: np.ndarray

    def __init__(self, adata_manager: AnnDataManager, batch_size: int = 128, data_path: str = "auto", **kwargs):
        self.distributed = bool(kwargs.pop("distributed_sampler", False))
        # scvi-tools would leave out one or two cells that do not fill a minibatch, for its batch norm; ours takes them
        super().__init__(adata_manager, batch_size=1, **kwargs)
        self.batch_size, self.data_path = batch_size, data_path
        self._dataset: CellsDataset | None = None

    def setup(self, stage: str | None = None) -> None:
        """Split the cells; all processes use the split of the first."""
        super().setup(stage)
        self.order_seed = int(torch.randint(2**62, ()))
        self.load_state_dict(self.trainer.strategy.broadcast(self.state_dict()))

    def state_dict(self) -> dict[str, Any]:
        """The split and the seed of the order, for checkpoints."""
        return {name: getattr(self, name) for name in ("train_idx", "val_idx", "test_idx", "order_seed")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the split and the seed of a checkpoint.

        Parameters
        ----------
        state_dict
            From `state_dict`.
        """
        for name, value in state_dict.items():
            setattr(self, name, value)

    def train_dataloader(self) -> DataLoader | None:
        """Blocks of training cells, in a new order each epoch."""
        return self._loader(self.train_idx, shuffle=True)

    def val_dataloader(self) -> DataLoader | None:
        """Blocks of validation cells."""
        return self._loader(self.val_idx)

    def test_dataloader(self) -> DataLoader | None:
        """Blocks of test cells."""
        return self._loader(self.test_idx)

    def ordered_dataloader(self, rows: np.ndarray) -> DataLoader | None:
        """Blocks of cells with the given rising row numbers (m,). Each of n processes gets every n-th cell."""
        return self._loader(rows)

    def some_rows(self, of: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Random cells from all parts of the data; of a file, in runs of neighbours.

        Parameters
        ----------
        of
            (m,) row numbers to choose from.
        n
            Number of cells; all are taken if there are fewer.
        seed
            Seed of the draw.

        Returns
        -------
        (min(m, n),) rising row numbers.
        """
        rows = np.sort(of)
        neighbours = NEIGHBOURS if self.cells().is_backed else 1
        order = Shuffled(len(rows), neighbours, torch.Generator().manual_seed(seed))
        return np.sort(rows[order[np.arange(min(n, len(rows)))]])

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        """Return the block, whose tensors are on the device already.

        Parameters
        ----------
        batch, device, dataloader_idx
            From Lightning.
        """
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        """Return the block; scvi-tools would fill in the zeros of sparse matrices.

        Parameters
        ----------
        batch, dataloader_idx
            From Lightning.
        """
        return batch

    def cells(self) -> CellsDataset:
        """All registered cells, by row number."""
        if self._dataset is None:
            device = self.trainer.strategy.root_device
            resident = is_resident(self.adata_manager, device, self.data_path)
            self._dataset = CellsDataset(self.adata_manager, device, resident)
            if self._dataset.is_backed:
                logger.info(
                    "Cells are read from disk: about %s MB of values an epoch, and up to as much again for validation. "
                    "data_path='resident' reads them into memory once.",
                    f"{self._dataset.n_bytes / 1e6:,.0f}",
                )
        return self._dataset

    def _loader(self, rows: np.ndarray, shuffle: bool = False) -> DataLoader | None:
        if not len(rows):
            return None
        strategy, dataset = self.trainer.strategy, self.cells()
        sampler = BlockSampler(
            rows,
            # Lightning averages the gradients of several processes once a block, so a block is one step
            self.batch_size if self.distributed else dataset.block_size(self.batch_size),
            self.order_seed if shuffle else None,
            strategy.global_rank if self.distributed else 0,
            strategy.world_size if self.distributed else 1,
            self.batch_size if self.drop_last and shuffle else 0,
            # with several processes a block is one minibatch, which must not be a few runs of neighbours
            NEIGHBOURS if dataset.is_backed and not self.distributed else 1,
        )
        return DataLoader(dataset, sampler=sampler, batch_size=None, generator=torch.Generator())  # not the global one


def _column(values, precise: bool = False) -> Tensor:
    """Codes or numbers of each cell, (n, 1) or (n, k); in double precision if they are yet to be standardised."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer) or precise:
        values = values.astype(np.float64 if precise else np.float32)
    return torch.tensor(values.reshape(len(values), -1))  # a copy, as columns of pandas are read-only
