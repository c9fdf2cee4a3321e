"""The file format of models and checkpoints: plain values and tensors, a checksum before them, and no code.

A file is one line ``mixvi model 1`` or ``mixvi checkpoint 1``, one line with the SHA-256 of all else, and what
`torch.save` writes of a dictionary with one JSON text and tensors. It is read with ``weights_only=True``, so reading
it runs nothing.
"""

import hashlib
import io
import json
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
from mixvi._version import __version__

VERSION = 1  # of the format; a later release reads all earlier ones
KINDS = {
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
    tensors: list[torch.Tensor] = []
    plain = json.dumps(_to_plain(content, tensors, name))
    buffer = io.BytesIO()
    torch.save({"json": plain, "tensors": tensors}, buffer)
    head, payload = f"mixvi {kind} {VERSION}".encode(), buffer.getvalue()
    return b"\n".join([head, _digest(head, payload), payload])


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
        raise ValueError(f"{path} is a folder, not a file of a {kind}; {KINDS[kind]}.")
    whole = path.read_bytes()
    if kind == "model" and whole.startswith((b"PK", b"\x80")):
        raise ValueError(
            f"{path} is in the pickled format of scvi-tools and earlier mixvi; reading it can run code that is in it. "
            "If you trust who made it, convert it once with the class's convert_legacy_save()."
        )
    head, _, rest = whole.partition(b"\n")
    digest, _, payload = rest.partition(b"\n")
    magic, version = f"mixvi {kind} ".encode(), head[len(f"mixvi {kind} ") :]
    if not head.startswith(magic) or not version.isdigit():
        raise ValueError(f"{path} is not a {kind} that mixvi saved; {KINDS[kind]}.")
    if _digest(head, payload) != digest:
        raise ValueError(f"{path} is damaged: its content does not have its checksum. Take a copy, or train anew.")
    if int(version) > VERSION:
        raise ValueError(f"{path} was saved by a later mixvi (format {int(version)}); update mixvi to read it.")
    with refusing(path, kind):
        try:
            stored = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ValueError("it holds more than values and tensors, and was not read") from error
        content = _from_plain(json.loads(stored["json"]), stored["tensors"])
        if not isinstance(content, dict):
            raise ValueError("it holds no names with values")
    return content


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
        do = "Take a copy, or train anew."
        if version not in ("", __version__):
            do = f"It was written by mixvi {version}, and this is {__version__}: use that version, or train anew."
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


def _digest(head: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(head + payload).hexdigest().encode()


def _to_plain(value: Any, tensors: list[torch.Tensor], where: str) -> Any:
    """What JSON can hold: scalars as they are, all else as [kind, ...]. Numbers of arrays go to ``tensors``."""
    if value is None:
        return None
    for scalar in (bool, int, float, str):  # also what derives from these, such as np.float64
        if isinstance(value, scalar):
            return scalar(value)
    if isinstance(value, np.generic):
        return _to_plain(value.item(), tensors, where)
    if isinstance(value, torch.Tensor):
        tensors.append(value.detach().cpu().clone())  # a view would be stored with all that it is a view of
        return ["tensor", len(tensors) - 1]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        native = value.dtype.newbyteorder("=")
        return ["array", _to_plain(torch.from_numpy(np.array(value, native)), tensors, where)]
    if isinstance(value, np.ndarray):
        return ["objects", list(value.shape), *(_to_plain(item, tensors, where) for item in value.ravel().tolist())]
    if isinstance(value, pd.DataFrame):
        columns = [value.iloc[:, i].to_numpy() for i in range(value.shape[1])]
        parts = (value.index.to_numpy(), value.index.name, list(value.columns), value.columns.name, columns)
        return ["table", *(_to_plain(part, tensors, where) for part in parts)]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, *(_to_plain(item, tensors, f"{where}[{i}]") for i, item in enumerate(value))]
    if isinstance(value, dict):
        keys = (_to_plain(key, tensors, where) for key in value)
        values = (_to_plain(item, tensors, f"{where}[{key!r}]") for key, item in value.items())
        return ["dict", *map(list, zip(keys, values, strict=True))]
    raise ValueError(f"A file cannot hold the {type(value).__name__} in {where}; it holds plain values and arrays.")


def _from_plain(stored: Any, tensors: list[torch.Tensor]) -> Any:
    """The value that `_to_plain` stored."""
    if not isinstance(stored, list):
        return stored
    kind, *parts = stored
    if kind == "tensor":
        return tensors[parts[0]]
    if kind == "dict":
        return {_from_plain(key, tensors): _from_plain(value, tensors) for key, value in parts}
    if kind == "objects":
        shape, *items = parts
        found = np.empty(len(items), dtype=object)
        found[:] = [_from_plain(item, tensors) for item in items]
        return found.reshape(shape)
    values = [_from_plain(part, tensors) for part in parts]
    if kind == "array":
        return values[0].numpy()
    if kind == "table":
        index, name, columns, columns_name, content = values
        table = pd.DataFrame(dict(enumerate(content)), index=pd.Index(index, name=name))
        return table.set_axis(pd.Index(columns, name=columns_name), axis=1)
    if kind not in ("list", "tuple"):
        raise ValueError(f"it holds a {kind!r}, which is not known")
    return values if kind == "list" else tuple(values)
