"""Convert ``.h5ad`` files to one zarr store, block by block."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from uuid import uuid4

import anndata as ad
import h5py
import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix
from scvi.utils import track

from mixvi.data._growing import GrowingCSR
from mixvi.data._support import ROWS_AT_ONCE
from mixvi.data._zarr import check_same_genes, needs_large, read_table, stack_obs


def to_zarr(
    h5ad_paths: str | PathLike | Sequence[str | PathLike],
    out: str | PathLike,
    layer: str | None = None,
    progress: bool = True,
) -> None:
    """Write ``.h5ad`` files one after the other into one zarr store, for `from_zarr`.

    Only ``.obs`` and about 16,000 cells are in memory. The store has a temporary name until it is complete.

    Parameters
    ----------
    h5ad_paths
        One or more files with the same genes in the same order. Their matrices must be CSR or dense.
    out
        The new store.
    layer
        The layer that becomes ``.X``; ``None`` is the files' ``.X``.
    progress
        Show a progress bar.

    Raises
    ------
    ImportError
        If the packages of ``mixvi[large]`` are missing.
    ValueError
        If ``out`` exists, no file is given, genes differ between files, or a matrix is CSC.
    KeyError
        If a layer does not exist.
    """
    needs_large("to_zarr")
    import zarr

    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists, and to_zarr does not overwrite it; choose another name, or remove it.")
    paths = [h5ad_paths] if isinstance(h5ad_paths, str | PathLike) else list(h5ad_paths)
    if not paths:
        raise ValueError("to_zarr got no file; pass one path, or a list of them.")
    unfinished = out.with_name(f"{out.name}.unfinished-{uuid4().hex[:8]}")
    try:
        with ExitStack() as open_files:
            files = [open_files.enter_context(h5py.File(path, "r")) for path in paths]
            matrices = [_matrix(file, layer, path) for file, path in zip(files, paths, strict=True)]
            var = read_table(files[0]["var"])
            for file, path in zip(files, paths, strict=True):
                check_same_genes(var.index, read_table(file["var"]).index, path, paths[0])
            obs = stack_obs([read_table(file["obs"]) for file in files])
            group = zarr.open_group(unfinished, mode="w-", zarr_format=3)
            ad.io.write_elem(group, "/", AnnData(obs=obs, var=var))
            _write(group, matrices, progress)
        if out.exists():
            raise ValueError(f"{out} was created meanwhile, and to_zarr does not overwrite it; choose another name.")
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _matrix(file: h5py.File, layer: str | None, path):
    """The matrix in a file, to read by rows."""
    where = "X" if layer is None else f"layers/{layer}"
    if where not in file:
        raise KeyError(f"{path} has no {where!r}; its layers are {sorted(file.get('layers', []))}, layer=None takes X.")
    if isinstance(file[where], h5py.Dataset):
        return file[where]
    matrix = ad.io.sparse_dataset(file[where])
    if matrix.format != "csr":
        raise ValueError(
            f"{path} has {where!r} by columns (CSC), from which rows cannot be read alone; it must be CSR or dense. "
            "Convert it with .tocsr() and write the file again."
        )
    return matrix


def _write(group, matrices: Sequence, progress: bool) -> None:
    if "X" in group:  # some versions of anndata write an empty one
        del group["X"]
    target = GrowingCSR(group, "X", np.result_type(*(matrix.dtype for matrix in matrices)))
    for block in _blocks(matrices, progress):
        target.append(block)
    target.close()


def _blocks(matrices: Sequence, progress: bool) -> Iterator[csr_matrix]:
    places = [(matrix, start) for matrix in matrices for start in range(0, matrix.shape[0], ROWS_AT_ONCE)]
    for matrix, start in track(places, description="to zarr", disable=not progress):
        block = csr_matrix(matrix[start : start + ROWS_AT_ONCE])
        block.sort_indices()
        yield block
