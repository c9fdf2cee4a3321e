"""A file comes back as it was written or is refused, and replaces an earlier one all at once."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from mixvi import _file
from mixvi._file import VALUE_KINDS, check_keys, read_file, refusing, write_file

VALUES = {
    "scalars": [None, True, 2, 2.5, float("inf"), "a", np.float64(0.1), np.int64(3), np.float32(0.5), np.bool_(True)],
    "keys": {1: "one", ("a", 2): "tuple", None: "none"},
    "arrays": [np.arange(6, dtype=">i4").reshape(2, 3), np.ones(2, np.float16), np.array(2.5), np.zeros((0, 3))],
    "strings": np.array([["a", "b"], ["c", "d"]]),
    "objects": np.array(["a", None, 3, 0.5], dtype=object),
    "tensor": torch.arange(4.0)[1:3],
    "table": pd.DataFrame({"loss": [1.0, np.nan]}, index=pd.Index([0, 1], name="epoch")),
    "nested": ({"a": [(1, 2), []]}, ()),
}


def same(a, b):
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, np.ndarray | torch.Tensor):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        [same(a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        assert isinstance(b, list | tuple)
        [same(*pair) for pair in zip(a, b, strict=True)]
    else:
        assert a == b


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt"
    write_file(path, VALUES)
    return path


def test_values_come_back(file):
    same(VALUES, read_file(file))
    assert read_file(file)["arrays"][1].dtype == np.float16
    assert [file] == list(file.parent.iterdir())


@pytest.mark.parametrize("value", [{1, 2}, object(), pd.Series([1]), len, 1j])
def test_what_a_file_cannot_hold_is_named(tmp_path, value):
    with pytest.raises(ValueError, match=rf"cannot hold the {type(value).__name__} in m\['a'\]\[1\]"):
        write_file(tmp_path / "m", {"a": [0, value]})
    assert not list(tmp_path.iterdir())


def test_every_flipped_bit_and_every_truncation_is_refused(file):
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for bit in rng.integers(8 * len(whole), size=400):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=str(file)):
            read_file(file)
    for length in [0, 1, *rng.integers(len(whole), size=100)]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(file)):
            read_file(file)


def test_a_later_format_is_named(file, monkeypatch):
    monkeypatch.setattr("mixvi._file.VERSION", 3)
    write_file(file, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"later mixvi \(format 3\); update mixvi"):
        read_file(file)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder, not a file of a model; pass the folder that save"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"no zip", b"PK\x03\x04zz", {"a": 1}, {"json": "{", "tensors": []}, {"json": "[" * 9000, "tensors": []},
        *({"json": text, "tensors": []} for text in ("3", '["dict", 1]', '["zebra", 1]', '["tensor", 9]', '["list"]')),
    ],
)  # fmt: skip
def test_a_wrong_content_with_a_right_checksum_is_refused(tmp_path, payload):
    path, head = tmp_path / "model.pt", b"mixvi model 1"
    if isinstance(payload, dict):
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        payload = buffer.getvalue()
    path.write_bytes(b"\n".join([head, _file._digest(head, payload), payload]))
    with pytest.raises(
        ValueError, match=r"model\.pt is not a model that mixvi can use: .* Use a copy, or train a new model"
    ):
        read_file(path)


@pytest.mark.parametrize("stored", [{"a": 1, "b": VALUE_KINDS}, {"a": [1], VALUE_KINDS: {("a",): ("objects", (3,))}}])
def test_wrong_values_with_a_right_checksum_are_refused(tmp_path, stored, monkeypatch):
    path, save = tmp_path / "model.pt", torch.save
    monkeypatch.setattr(torch, "save", lambda _, buffer: save(stored, buffer))
    write_file(path, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"model\.pt is not a model that mixvi can use"):
        read_file(path)


def test_the_version_that_wrote_a_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="KeyError 'a'. It was written by mixvi 9.1, and this is"):  # noqa: SIM117
        with refusing(tmp_path / "model.pt", "model", "9.1"):
            {}["a"]
    with refusing(tmp_path / "model.pt", "model"):
        check_keys({"a": 1, "b": 2}, {"a"})
    with pytest.raises(ValueError, match=r"it lacks \['b', 'c'\]"):
        check_keys({"a": 1}, {"c", "a", "b"})


KILLS = """
import importlib.util, os, random, signal, sys, time
from pathlib import Path

import numpy as np

spec = importlib.util.spec_from_file_location("file", sys.argv[1])  # without the package, which takes long to import
file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(file)
path, values = Path(sys.argv[2]), np.arange(200_000)
file.write_file(path, {"round": -1, "values": values})
for _ in range(20):
    before, child = path.stat().st_ino, os.fork()
    if child == 0:
        for number in range(100_000):
            file.write_file(path, {"round": number, "values": values})
        os._exit(0)
    while path.stat().st_ino == before:  # until it has saved once: it is saving now
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = file.read_file(path)
    assert found["round"] >= 0
    np.testing.assert_array_equal(found["values"], values)
"""


def test_a_kill_while_saving_leaves_a_whole_model(tmp_path):
    """In a process of its own: this one has threads, which a fork does not bear."""
    command = [sys.executable, "-c", KILLS, _file.__file__, str(tmp_path / "model.pt")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_torch_reads_a_file_as_plain_values_and_tensors(tmp_path):
    content = {"a": 1, "b": [True, None, 0.5, "text"], "w": torch.arange(3), "x": np.eye(2), "y": np.array(["c", "d"])}
    write_file(tmp_path / "model.pt", content)
    whole = (tmp_path / "model.pt").read_bytes()
    assert whole[-78:-64] == b"mixvi model 2 "
    assert whole[-64:].decode() == hashlib.sha256(whole[:-64]).hexdigest()
    assert zipfile.ZipFile(tmp_path / "model.pt").comment == whole[-78:]
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert stored.pop("kinds of values") == {("x",): "array", ("y",): ("objects", (2,))}
    assert {key: getattr(value, "tolist", lambda value=value: value)() for key, value in stored.items()} == {
        "a": 1, "b": [True, None, 0.5, "text"], "w": [0, 1, 2], "x": [[1, 0], [0, 1]], "y": ["c", "d"],
    }  # fmt: skip


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
