"""Files of mixvi 0.1.0. A model of it is loaded in model/test_saving.py."""

import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch

from mixvi._file import read_file


def write(path, kind, content, tensors):
    """As mixvi 0.1.0 wrote it."""
    payload = io.BytesIO()
    torch.save({"json": json.dumps(content), "tensors": tensors}, payload)
    head, payload = f"mixvi {kind} 1".encode(), payload.getvalue()
    path.write_bytes(head + b"\n" + hashlib.sha256(head + payload).hexdigest().encode() + b"\n" + payload)


def test_values_come_back(tmp_path):
    table = ["table", ["objects", [2], "a", "b"], "cell", ["list", "loss"], None, ["list", ["array", ["tensor", 0]]]]
    attributes, state = ["dict", [1, ["tuple", True, None]], ["t", table]], ["dict", ["w", ["tensor", 1]]]
    content = ["dict", ["attributes", attributes], ["state", state]]
    write(tmp_path / "model.pt", "model", content, [torch.arange(2.0), torch.eye(2)])
    found = read_file(tmp_path / "model.pt")
    assert set(found) == {"attr_dict", "model_state_dict"}
    assert found["attr_dict"][1] == (True, None)
    expected = pd.DataFrame({"loss": np.arange(2, dtype=np.float32)}, pd.Index(["a", "b"], name="cell", dtype=object))
    pd.testing.assert_frame_equal(found["attr_dict"]["t"], expected, check_index_type=False, check_column_type=False)
    assert found["model_state_dict"]["w"].equal(torch.eye(2))
    write(tmp_path / "a.ckpt", "checkpoint", ["dict", ["state", 1]], [])
    assert read_file(tmp_path / "a.ckpt", "checkpoint") == {"state": 1}


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_damaged_and_other_files_are_refused(tmp_path, kind):
    write(tmp_path / "a", kind, ["dict"], [])
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        read_file(tmp_path / "a", kind)
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(ValueError, match="is not a"):
        read_file(tmp_path / "a", {"model": "checkpoint", "checkpoint": "model"}[kind])
