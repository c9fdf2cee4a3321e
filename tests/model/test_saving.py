"""A saved model is whole or refused, replaces an earlier one all at once, and runs no code when it is loaded."""

import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import mixvi
from mixvi import _file, datasets
from mixvi._file import _digest, read_file, write_file
from tests.model.helpers import fitted

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


@pytest.mark.parametrize(
    "foreign", [b"", b"\x89HDF\r\n", b"mixvi model x\n", b"PK\x03\x04", pickle.dumps({}), b"\n" * 99]
)
def test_foreign_files_are_refused(tmp_path, foreign):
    (tmp_path / "model.pt").write_bytes(foreign)
    with pytest.raises(ValueError, match=r"model.pt is (not a model that mixvi saved|damaged|in the pickled format)"):
        mixvi.VAE.load(tmp_path, adata=False)


def test_a_later_format_is_named(file, monkeypatch):
    monkeypatch.setattr("mixvi._file.VERSION", 2)
    write_file(file, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"later mixvi \(format 2\); update mixvi"):
        read_file(file)


class RunsCode:
    """What a prepared file holds: to unpickle it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("where", ["top", "attributes", "registry", "names", "state"])
@pytest.mark.parametrize("load", ["load", "registry", "other class"])
def test_loading_runs_no_code(tmp_path, where, load):
    code, folder = RunsCode(tmp_path / "ran"), tmp_path / "model"
    stored = {"model_state_dict": {}, "var_names": [], "attr_dict": {"registry_": {"model_name": "VAE"}}}
    places = {"top": stored, "attributes": stored["attr_dict"], "registry": stored["attr_dict"]["registry_"]}
    places |= {"state": stored["model_state_dict"], "names": stored}
    places[where]["var_names" if where == "names" else "code"] = code
    folder.mkdir()
    torch.save(stored, folder / "model.pt")
    how = {"load": mixvi.VAE.load, "registry": mixvi.VAE.load_registry, "other class": mixvi.GMVAE.load}[load]
    with pytest.raises(ValueError, match="reading it can run code that is in it. If you trust"):
        how(folder)
    payload = (folder / "model.pt").read_bytes()  # and with a header and a checksum that are right
    head = b"mixvi model 1"
    (folder / "model.pt").write_bytes(head + b"\n" + _digest(head, payload) + b"\n" + payload)
    with pytest.raises(ValueError, match="holds more than values and tensors, and was not read"):
        how(folder)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def model():
    return fitted("VAE", datasets.blobs(n_cells=60, kind="count", seed=0))


def test_a_full_disk_leaves_the_earlier_model(model, tmp_path):
    model.save(tmp_path / "model")
    before = (tmp_path / "model" / "model.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            model.save(tmp_path / "model", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "model" / "model.pt").read_bytes() == before
    assert len(list((tmp_path / "model").iterdir())) == 1


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


def test_weights_that_are_no_numbers_are_refused(model, tmp_path):
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.pt"
    content = read_file(path)
    name = next(name for name, value in content["state"].items() if value.is_floating_point())
    content["state"][name] = torch.full_like(content["state"][name], torch.nan)
    write_file(path, content)
    with pytest.raises(ValueError, match=f"weights '{name}' of the model in .* are not finite"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)
    del content["state"][name]
    write_file(path, content)
    with pytest.raises(ValueError, match="not those of this VAE.*Missing key"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)
    write_file(path, {"attributes": {}})
    with pytest.raises(ValueError, match=r"lacks \['state'\]: it is not a whole model"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)


def test_cells_are_saved_beside_the_model(model, tmp_path):
    model.save(tmp_path / "model", prefix="a_", save_anndata=True)
    again = mixvi.VAE.load(tmp_path / "model", prefix="a_", accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), rtol=1e-5)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"a_model.pt", "a_adata.h5ad"}
    assert mixvi.VAE.load_registry(tmp_path / "model", "a_")["model_name"] == "VAE"
    with pytest.raises(ValueError, match="exists; pass another folder, or overwrite=True"):
        model.save(tmp_path / "model")


def test_a_file_of_the_pickled_format_is_converted(model, tmp_path):
    attributes = {name: value for name, value in vars(model).items() if name.endswith("_") and name[0] != "_"}
    state = {**model.module.state_dict(), "pyro_param_store": {}}
    (tmp_path / "old").mkdir()
    torch.save(
        {"model_state_dict": state, "var_names": model.get_var_names(), "attr_dict": attributes},
        tmp_path / "old" / "model.pt",
    )
    mixvi.VAE.convert_legacy_save(tmp_path / "old", tmp_path / "new")
    again = mixvi.VAE.load(tmp_path / "new", adata=model.adata, accelerator="cpu")
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    pd.testing.assert_frame_equal(again.history["elbo_train"], model.history["elbo_train"])
    with pytest.raises(ValueError, match="exists; pass another folder"):
        mixvi.VAE.convert_legacy_save(tmp_path / "old", tmp_path / "new")
