"""The file format of models and checkpoints: plain values and tensors, a checksum behind them, and no code.

A file is what `torch.save` writes of a dictionary of plain values and tensors. So other tools can read it, and
``weights_only=True`` is enough to read it, which runs nothing. Arrays are stored as tensors or lists, and tables as
dictionaries. The entry ``"kinds of values"`` says which ones, by their place. The file ends with
``mixvi model 2`` or ``mixvi checkpoint 2`` and the SHA-256 of all before, as the comment of its zip archive.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # only the name of an error
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import torch

from mixvi._atomic import replacing
from mixvi._file_v1 import read_first_format
from mixvi._version import __version__

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
    whole = to_bytes(content, path.name, kind)
    with replacing(path) as [new]:
        new.write_bytes(whole)


def to_bytes(content: dict[str, Any], name: str, kind: str = "model") -> bytes:
    """What `write_file` writes.

    Parameters
    ----------
    content, kind
        As in `write_file`.
    name
        Of the file, for errors.

    Raises
    ------
    ValueError
        As `write_file`.
    """
    kinds: dict[tuple, Any] = {}
    buffer = io.BytesIO()
    torch.save({VALUE_KINDS: kinds} | _to_plain(content, kinds, (), name), buffer)
    tail = f"mixvi {kind} {VERSION} ".encode()
    head = buffer.getvalue()[:-2]  # then an archive has the length of its comment, and the comment
    body = b"".join([head, (len(tail) + N_DIGEST).to_bytes(2, "little"), tail])
    return body + _digest(body)


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
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of a {kind}; {FILE_KINDS[kind]}.")
    content = path.read_bytes()
    with refusing(path, kind):
        earlier = read_first_format(path, content, kind)
    if earlier is not None:
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
    with refusing(path, kind):
        try:
            stored = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ValueError("it holds more than values and tensors, and was not read") from error
        values = _from_plain(stored, stored.pop(VALUE_KINDS), ())
        if not isinstance(values, dict):
            raise ValueError("it holds no names with values")
    return values


@contextmanager
def refusing(path: Path, kind: str, version: str = "") -> Iterator[None]:
    """Whatever goes wrong with the content of a file, raise one error that names the file and says what to do.

    Parameters
    ----------
    path
        Of the file.
    kind
        ``"model"`` or ``"checkpoint"``.
    version
        The mixvi that wrote it; empty if it is not known.

    Raises
    ------
    ValueError
        In place of any other error.
    """
    try:
        yield
    except Exception as error:  # wrong content can lead to any
        said = shorten(str(error), 300).rstrip(".")
        why = said if isinstance(error, ValueError) else f"{type(error).__name__} {said}".rstrip()
        do = "Use a copy, or train a new model."
        if version not in ("", __version__):
            do = f"It was written by mixvi {version}, and this is {__version__}. Use that version, or train anew."
        raise ValueError(f"{path} is not a {kind} that mixvi can use: {why}. {do}") from error


def check_keys(values: dict[str, Any], needed: set[str]) -> None:
    """Raise a ValueError if a dictionary lacks a key.

    Parameters
    ----------
    values
        From a file.
    needed
        Its keys, at least.
    """
    if missing := sorted(needed - set(values)):
        raise ValueError(f"it lacks {missing}")


def is_own(path: Path) -> bool:
    """Whether a file is one that mixvi wrote."""
    start = path.read_bytes()[:1000]
    return start.startswith(b"mixvi ") or VALUE_KINDS.encode() in start


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
