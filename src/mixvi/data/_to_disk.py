"""Write an AnnData to disk with its matrix block by block."""

import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from uuid import uuid4

import anndata as ad
import h5py
import numpy as np
import zarr
from anndata import AnnData

SUFFIXES = (".h5ad", ".zarr")
CHUNK_VALUES = 1_000_000  # in a chunk: 4 MB before compression


def check_target(path: str | PathLike) -> Path:
    """The path, if an AnnData can be written there.

    Raises
    ------
    ValueError
        If the name does not end in .h5ad or .zarr, the folder does not exist, or the file exists.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in {' or '.join(SUFFIXES)}, which selects the format.")
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten; choose another name, or remove it.")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder; create it first.")
    return path


def write_blocks(path: str | PathLike, skeleton: AnnData, blocks: Iterable[np.ndarray]) -> None:
    """Write an AnnData with a float32 ``.X`` that comes in blocks, so that only one block is in memory.

    The file has a temporary name until it is complete.

    Parameters
    ----------
    path
        New file, ``.h5ad`` or ``.zarr``.
    skeleton
        AnnData of the same shape, without ``.X``.
    blocks
        (m, g) each: consecutive rows, in total as many as the skeleton has.

    Raises
    ------
    ValueError
        If the name does not end in .h5ad or .zarr, the folder does not exist, or the file exists.
    """
    path = check_target(path)
    unfinished = path.with_name(f"{path.name}.unfinished-{uuid4().hex[:8]}")
    try:
        if path.suffix == ".h5ad":
            with h5py.File(unfinished, "w") as file:
                _write(file, skeleton, blocks)
        else:
            _write(zarr.open_group(unfinished, mode="w"), skeleton, blocks)
        check_target(path)
        unfinished.rename(path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)


def _write(group: h5py.File | zarr.Group, skeleton: AnnData, blocks: Iterable[np.ndarray]) -> None:
    ad.io.write_elem(group, "/", skeleton)
    if "X" in group:  # some versions of anndata write an empty one
        del group["X"]
    n, g = skeleton.shape
    create = group.create_dataset if isinstance(group, h5py.File) else group.create_array
    chunks = (min(max(CHUNK_VALUES // g, 1), n), g)
    matrix = create("X", shape=skeleton.shape, dtype=np.float32, chunks=chunks)
    matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for block in blocks:
        matrix[start : start + len(block)] = block
        start += len(block)
