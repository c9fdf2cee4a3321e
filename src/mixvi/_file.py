"""The file format of models and checkpoints: plain values and tensors, a checksum behind them, and no code.

A file is what `torch.save` writes of a dictionary of plain values and tensors. So other tools can read it, and
``weights_only=True`` is enough to read it, which runs nothing. Arrays are stored as tensors or lists, and tables as
dictionaries. The entry ``"kinds of values"`` says which ones, by their place. The file ends with
``mixvi model 2`` or ``mixvi checkpoint 2`` and the SHA-256 of all before, as the comment of its zip archive.
"""

import hashlib
import io
import os
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pandas as pd
import torch

from mixvi._atomic import replacing
from mixvi._file_v1 import read_first_format

VERSION = 2  # of the format; a later release reads all earlier ones
VALUE_KINDS = "kinds of values"  # entry of a file
N_DIGEST = 64  # characters
FILE_KINDS = {
    "model": "pass the folder that save() wrote",
    "checkpoint": "pass the path that the interrupted train() named",
}


def write_file(path: Path, content: dict[str, Any], kind: str = "model") -> None:
    """Write plain values to a file, all or nothing: an earlier file stays until the new one is whole and on the disk.

    Parameters
    ----------
    path
        Of the file; its folder exists.
    content
        None, booleans, numbers, strings, lists, tuples, dictionaries, arrays, tensors and tables of these.
    kind
        ``"model"`` or ``"checkpoint"``.

    Raises
    ------
    ValueError
        If there is any other object in it.
    OSError
        If the disk is full or the folder cannot be written to.
    """
    kinds: dict[tuple, Any] = {}
    buffer = io.BytesIO()
    plain = _to_plain(content, kinds, (), path.name)
    torch.save({VALUE_KINDS: kinds} | plain, buffer)
    tail = f"mixvi {kind} {VERSION} ".encode()
    head = memoryview(buffer.getvalue())[:-2]  # then an archive has the length of its comment, and the comment
    body: list[bytes | memoryview] = [head, (len(tail) + N_DIGEST).to_bytes(2, "little"), tail]
    with replacing(path) as new, new.open("wb") as file:
        file.writelines([*body, _digest(*body)])
        file.flush()
        os.fsync(file.fileno())


def read_file(path: Path, kind: str = "model") -> dict[str, Any]:
    """What `write_file` wrote.

    Parameters
    ----------
    path
        Of the file.
    kind
        ``"model"`` or ``"checkpoint"``.

    Raises
    ------
    ValueError
        If it is not a whole file of this format, or of a later version of it.
    """
    if (earlier := read_first_format(path, content := path.read_bytes(), kind)) is not None:
        return earlier
    whole = memoryview(content)
    body, digest = whole[:-N_DIGEST], whole[-N_DIGEST:]
    found = re.search(rb"mixvi (\w+) (\d+) $", bytes(body[-40:]))
    is_ours = VALUE_KINDS.encode() in bytes(whole[:1000])
    if kind == "model" and not is_ours and whole[:1] in (b"P", b"\x80"):
        raise ValueError(
            f"{path} is in the pickled format of scvi-tools and earlier mixvi; reading it can run code that is in it. "
            "If you trust who made it, convert it once with the class's convert_legacy_save()."
        )
    if not is_ours or (found is not None and found[1] != kind.encode()):
        raise ValueError(f"{path} is not a {kind} that mixvi saved; {FILE_KINDS[kind]}.")
    if found is None or _digest(body) != bytes(digest):
        raise ValueError(f"{path} is damaged: its checksum is wrong. Use a copy, or train a new model.")
    if int(found[2]) > VERSION:
        raise ValueError(f"{path} was saved by a later mixvi (format {int(found[2])}); update mixvi to read it.")
    try:
        stored = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"{path} holds more than values and tensors, and was not read.") from error
    return _from_plain(stored, stored.pop(VALUE_KINDS), ())


def _digest(*parts: bytes | memoryview) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest().encode()


def _to_plain(value: Any, kinds: dict[tuple, Any], at: tuple, name: str) -> Any:
    """Values and tensors that stand for a value. ``kinds`` says by the place in the file what else it was."""
    if value is None:
        return None
    for scalar in (bool, int, float, str):  # also what derives from these, such as np.float64
        if isinstance(value, scalar):
            return scalar(value)
    if isinstance(value, np.generic):
        return _to_plain(value.item(), kinds, at, name)
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # a view would be stored with all that it is a view of
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        kinds[at] = "array"
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if isinstance(value, np.ndarray):
        kinds[at] = ("objects", value.shape)
        return [_to_plain(item, kinds, (*at, i), name) for i, item in enumerate(value.ravel().tolist())]
    if isinstance(value, pd.DataFrame):
        kinds[at] = "table"
        content = [value.iloc[:, i].to_numpy() for i in range(value.shape[1])]
        names = {"columns": list(value.columns), "index name": value.index.name, "columns name": value.columns.name}
        return _to_plain({"index": value.index.to_numpy(), "content": content} | names, kinds, at, name)
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return kind(_to_plain(item, kinds, (*at, i), name) for i, item in enumerate(value))
    if isinstance(value, dict):
        return {
            _to_plain(key, kinds, (*at, key), name): _to_plain(item, kinds, (*at, key), name)
            for key, item in value.items()
        }
    where = name + "".join(f"[{key!r}]" for key in at)
    raise ValueError(f"A file cannot hold the {type(value).__name__} in {where}; it holds plain values and arrays.")


def _from_plain(stored: Any, kinds: dict[tuple, Any], at: tuple) -> Any:
    """The value that `_to_plain` stored."""
    kind = kinds.get(at)
    if isinstance(stored, list | tuple):
        items = [_from_plain(item, kinds, (*at, i)) for i, item in enumerate(stored)]
        if kind is None:
            return items if isinstance(stored, list) else tuple(items)
        found = np.empty(len(items), dtype=object)
        found[:] = items
        return found.reshape(kind[1])
    if isinstance(stored, dict):
        values = {key: _from_plain(value, kinds, (*at, key)) for key, value in stored.items()}
        if kind != "table":
            return values
        table = pd.DataFrame(
            dict(enumerate(values["content"])), index=pd.Index(values["index"], name=values["index name"])
        )
        return table.set_axis(pd.Index(values["columns"], name=values["columns name"]), axis=1)
    return stored.numpy() if kind == "array" else stored
