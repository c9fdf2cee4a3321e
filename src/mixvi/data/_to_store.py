"""Add results to a zarr store of cells, all at once."""

import shutil
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import anndata as ad
import numpy as np
import zarr
from scipy.sparse import csr_matrix

from mixvi.data._annotation import check_free, own_keys
from mixvi.data._growing import Growing, GrowingCSR

DENSE_CHUNK_ROWS = 1024  # of dense arrays: rows that are decoded together


class Entries(NamedTuple):
    """Results for m consecutive cells. Keys are those of the AnnData."""

    obs: dict[str, Any]  # (m,) arrays or categoricals; the whole column stays in memory until the end
    obsm: dict[str, np.ndarray | csr_matrix]  # (m, ...), written at once


def check_store(path: str | PathLike, key_added: str) -> None:
    """Check that results can be written into a store under a name.

    Parameters
    ----------
    path
        The store.
    key_added
        Name of the results, as in ``annotate``.

    Raises
    ------
    ValueError
        If the store is not a folder, or other data have this name.
    """
    if not Path(path).is_dir():
        raise ValueError(f"{path} is not a folder on this machine, and results can be added to folders only; copy it.")
    check_free(_held(_open(path), key_added), key_added)


def write_entries(
    path: str | PathLike, key_added: str, blocks: Iterable[Entries], uns: dict[str, Any], varm: dict[str, np.ndarray]
) -> None:
    """Write results into a store, and replace earlier ones of the same name.

    All is first written into a folder beside the store. Then the parts move into the store, which takes an instant.

    Parameters
    ----------
    path
        The store.
    key_added
        Name of the results, as in ``annotate``.
    blocks
        Results for all cells of the store, in their order.
    uns
        What ``.uns[key_added]`` gets. The names of the other entries are added to it, under ``"keys"``.
    varm
        Entries for ``.varm``.
    """
    root = _open(path)
    new = Path(path).with_name(f"{Path(path).name}.unfinished-{uuid4().hex[:8]}")
    try:
        group = zarr.open_group(new, mode="w-", zarr_format=root.metadata.zarr_format)
        places = _write(group, blocks, varm)
        ad.io.write_elem(group.require_group("uns"), key_added, uns | {"keys": places})
        _move(Path(path), new, root, key_added, places)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _open(path: str | PathLike) -> zarr.Group:
    return zarr.open_group(path, mode="r+", use_consolidated=False)


def _held(root: zarr.Group, key_added: str) -> Any:
    """What the checks of ``annotate`` look at in an AnnData."""
    place = f"uns/{key_added}"
    uns = {key_added: ad.io.read_elem(root[place])} if place in root else {}
    return SimpleNamespace(obs=root["obs"], obsm=root.get("obsm", {}), varm=root.get("varm", {}), uns=uns)


def _write(group: zarr.Group, blocks: Iterable[Entries], varm: dict[str, np.ndarray]) -> list[str]:
    """Write everything except ``.uns``, and return where it is."""
    columns: dict[str, list] = {}
    growing: dict[str, Growing | GrowingCSR] = {}
    for block in blocks:
        for key, values in block.obs.items():
            columns.setdefault(key, []).append(values)
        for key, values in block.obsm.items():
            place = f"obsm/{key}"
            if place not in growing:
                growing[place] = _growing(group, place, values)
            growing[place].append(values)
    for target in growing.values():
        target.close()
    whole = {f"obs/{key}": _joined(parts) for key, parts in columns.items()}
    whole |= {f"varm/{key}": values for key, values in varm.items()}
    for place, values in whole.items():
        room, key = place.split("/")
        ad.io.write_elem(group.require_group(room), key, values)
    return [*whole, *growing]


def _growing(group: zarr.Group, place: str, first: np.ndarray | csr_matrix) -> Growing | GrowingCSR:
    if isinstance(first, csr_matrix):
        return GrowingCSR(group, place, first.dtype)
    return Growing(group, place, first.dtype, DENSE_CHUNK_ROWS, first.shape[1:])


def _joined(parts: list) -> Any:
    """One column; all parts of a categorical have the same categories."""
    first = parts[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    return first.from_codes(np.concatenate([part.codes for part in parts]), dtype=first.dtype)


def _move(path: Path, new: Path, root: zarr.Group, key_added: str, places: list[str]) -> None:
    """Move what is written into the store.

    At each moment a reader finds whole entries only, and ``.uns`` says that those of this name are mixvi's own.
    """
    is_consolidated = zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None
    root.update_attributes({})  # writes the metadata of this group alone: consolidated ones would now be wrong
    (path / ".zmetadata").unlink(missing_ok=True)
    old = ["/".join(place) for place in own_keys(_held(root, key_added), key_added)]
    there: Any = root["obs"].attrs["column-order"]
    kept = [key for key in there if f"obs/{key}" not in old]
    root["obs"].attrs["column-order"] = kept
    for room in {place.split("/")[0] for place in [*places, "uns/"]} - set(root):
        ad.io.write_elem(root, room, {})
    for place in [*old, f"uns/{key_added}"]:
        if (path / place).exists():
            (new / "old" / place).parent.mkdir(parents=True, exist_ok=True)
            (path / place).rename(new / "old" / place)
    for place in [f"uns/{key_added}", *places]:
        (new / place).rename(path / place)
    columns = [place.removeprefix("obs/") for place in places if place.startswith("obs/")]
    root["obs"].attrs["column-order"] = [*kept, *columns]
    if is_consolidated:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(path)
