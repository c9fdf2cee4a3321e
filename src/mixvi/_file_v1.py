"""The file format of mixvi 0.1.0: one text in JSON and tensors, with a checksum before them. It is only read.

A file is one line ``mixvi model 1`` or ``mixvi checkpoint 1``, one line with the SHA-256 of all else, and what
`torch.save` wrote of a dictionary with the text and the tensors.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

NAMES_OF_V1 = {"attributes": "attr_dict", "state": "model_state_dict"}  # entries of a model, then and now


def read_first_format(path: Path, whole: bytes, kind: str) -> dict[str, Any] | None:
    """What mixvi 0.1.0 wrote, under the present names; ``None`` if the file is of another format.

    Parameters
    ----------
    path
        Of the file, for messages.
    whole
        Its content.
    kind
        ``"model"`` or ``"checkpoint"``.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    head, _, rest = whole.partition(b"\n")
    if head != f"mixvi {kind} 1".encode():
        return None
    digest, _, payload = rest.partition(b"\n")
    if hashlib.sha256(head + payload).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged: its content does not have its checksum. Take a copy, or train anew.")
    stored = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    content = _from_plain(json.loads(stored["json"]), stored["tensors"])
    return {NAMES_OF_V1.get(name, name) if kind == "model" else name: value for name, value in content.items()}


def _from_plain(stored: Any, tensors: list[torch.Tensor]) -> Any:
    """The value that was stored: a scalar as it is, all else as [kind, ...]."""
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
