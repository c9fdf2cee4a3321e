"""The format of a saved model, read as its description says, without the reader of mixvi."""

import hashlib
import io
import json

import numpy as np
import pytest
import torch
from mixvi.model._file import read_file, write_file


def test_a_file_is_two_lines_and_tensors_beside_a_text(tmp_path):
    content = {"a": 1, "b": [True, None, 0.5, "text"], "w": torch.arange(3), "x": np.eye(2)}
    write_file(tmp_path / "model.pt", content)
    head, digest, payload = (tmp_path / "model.pt").read_bytes().split(b"\n", 2)
    assert head == b"mixvi model 1"
    assert digest.decode() == hashlib.sha256(head + payload).hexdigest()
    stored = torch.load(io.BytesIO(payload), weights_only=True)
    assert set(stored) == {"json", "tensors"}
    assert [tensor.tolist() for tensor in stored["tensors"]] == [[0, 1, 2], [[1, 0], [0, 1]]]
    assert json.loads(stored["json"]) == [
        "dict", ["a", 1], ["b", ["list", True, None, 0.5, "text"]], ["w", ["tensor", 0]],
        ["x", ["array", ["tensor", 1]]],
    ]  # fmt: skip


def test_a_part_of_a_tensor_is_stored_without_the_rest(tmp_path):
    write_file(tmp_path / "part.pt", {"w": torch.zeros(1_000_000)[:3]})
    assert (tmp_path / "part.pt").stat().st_size < 10_000


def test_names_that_look_like_kinds_stay_names(tmp_path):
    content = {"dict": ["list", "tensor", 0], ("tuple", 1): {"array": ["table"]}, "list": ()}
    write_file(tmp_path / "model.pt", content)
    assert read_file(tmp_path / "model.pt") == content


@pytest.mark.parametrize("content", [{}, {"empty": torch.zeros(0, 3)}, {"nested": {"deep": {"deeper": [[[]]]}}}])
def test_what_is_empty_comes_back(tmp_path, content):
    write_file(tmp_path / "model.pt", content)
    assert str(read_file(tmp_path / "model.pt")) == str(content)
