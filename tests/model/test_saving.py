"""A saved model is whole or refused, replaces an earlier one all at once, and runs no code when it is loaded."""

import copy
import os
import pickle
import resource
import shutil
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scvi.hub import HubMetadata, HubModel
from scvi.train import SaveCheckpoint

import mixvi
from mixvi import datasets
from mixvi._file import VALUE_KINDS, _digest, read_file, write_file
from mixvi._warnings import MixviWarning
from tests.model.helpers import build, fitted


@pytest.mark.parametrize(
    "foreign", [b"", b"\x89HDF\r\n", b"mixvi model x\n", b"PK\x03\x04", pickle.dumps({}), b"\n" * 99]
)
def test_foreign_files_are_refused(tmp_path, foreign):
    (tmp_path / "model.pt").write_bytes(foreign)
    with pytest.raises(ValueError, match=r"model.pt is (not a model that mixvi saved|damaged|in the pickled format)"):
        mixvi.VAE.load(tmp_path, adata=False)


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
    torch.save({VALUE_KINDS: {}} | stored, folder / "model.pt")  # and with an end and a checksum that are right
    body = (folder / "model.pt").read_bytes()[:-2] + (78).to_bytes(2, "little") + b"mixvi model 2 "
    (folder / "model.pt").write_bytes(body + _digest(body))
    with pytest.raises(ValueError, match=r"model\.pt .* holds more than values and tensors, and was not read"):
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


def test_weights_that_are_no_numbers_are_refused(model, tmp_path):
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.pt"
    content = read_file(path)
    name = next(name for name, value in content["model_state_dict"].items() if value.is_floating_point())
    content["model_state_dict"][name] = torch.full_like(content["model_state_dict"][name], torch.nan)
    write_file(path, content)
    with pytest.raises(ValueError, match=rf"model\.pt .* weights '{name}' are not finite"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)
    del content["model_state_dict"][name]
    write_file(path, content)
    with pytest.raises(ValueError, match=r"model\.pt .* state_dict for VAEModule: Missing key"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)
    write_file(path, {"attr_dict": {}})
    with pytest.raises(ValueError, match=r"model\.pt .* lacks \['model_state_dict'\]"):
        mixvi.VAE.load(tmp_path / "model", adata=model.adata)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """What is in the file of a GMVAE with held-out cells, and its cells."""
    model = fitted("GMVAE", datasets.blobs(n_cells=240, kind="count", seed=0))
    model.save(folder := tmp_path_factory.mktemp("whole") / "model")
    return read_file(folder / "model.pt"), model.adata


def unknown(values):
    """The same, with NaN for each number."""
    if isinstance(values, dict):
        return {key: unknown(value) for key, value in values.items()}
    return np.full_like(values, np.nan) if getattr(values, "dtype", np.array("")).kind == "f" else values


WRONG = {  # place in the file -> how it is changed, what the message says
    "registry_": (None, r"lacks \['registry_'\]"),
    "init_params_": (None, r"lacks \['init_params_'\]"),
    "clusters_": (None, r"lacks \['clusters_'\]"),
    "registry_/setup_args": (None, r"lacks \['setup_args'\]"),
    "registry_/model_name": (lambda name: "Zebra", "its class is Zebra, which is not of this mixvi"),
    "registry_/field_registries/X": (None, "KeyError 'X'"),
    "registry_/setup_args/labels_key": (None, "KeyError 'labels_key'"),
    "registry_/setup_args/new": (lambda _: 3, "unexpected keyword argument 'new'"),
    "init_params_/non_kwargs/new_option": (lambda _: 3, "unexpected keyword argument 'new_option'"),
    "init_params_/non_kwargs/n_latent": (lambda n: -n, "n_latent"),
    "clusters_/shares": (unknown, r"\['shares'\] in its clusters_ are not finite"),
    "clusters_/size": (unknown, r"\['size'\] in its clusters_ are not finite"),
    "clusters_/new": (lambda _: 3, "unexpected keyword argument 'new'"),
    "clusters_/tree/pairs": (None, "pairs"),
    "held_out_": (unknown, r"\['depth', 'latent', 'reference', 'spacing'\] in its held_out_ are not finite"),
}


@pytest.mark.parametrize("version", ["0.1.0", "9.0.0"])
@pytest.mark.parametrize("place", WRONG)
def test_what_is_wrong_in_a_file_is_one_sentence_with_its_name(stored, tmp_path, place, version):
    content, adata = copy.deepcopy(stored[0]) | {"version": version}, stored[1]
    change, said = WRONG[place]
    *folders, name = place.split("/")
    inside = content["attr_dict"]
    for folder in folders:
        inside = inside[folder]
    if change is None:
        del inside[name]
    else:
        inside[name] = change(inside.get(name))
    write_file(tmp_path / "model.pt", content)
    do = {
        "0.1.0": "Use a copy, or train a new model",
        "9.0.0": "written by mixvi 9.0.0, and this is .*Use that version",
    }
    for cells in (adata, False):
        with pytest.raises(ValueError, match=rf"model\.pt is not a model that mixvi can use: .*{said}.*{do[version]}"):
            mixvi.GMVAE.load(tmp_path, cells)


def test_cells_that_do_not_suit_are_not_blamed_on_the_file(stored, tmp_path):
    write_file(tmp_path / "model.pt", stored[0])
    other = stored[1].copy()
    other.X = other.X - 0.5
    with pytest.raises(ValueError, match="count") as raised:
        mixvi.GMVAE.load(tmp_path, other)
    assert "model.pt" not in str(raised.value)
    (tmp_path / "adata.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"adata\.h5ad cannot be read as an \.h5ad file"):
        mixvi.GMVAE.load(tmp_path)


def test_a_model_is_made_once_when_it_is_loaded_with_cells(tmp_path, blobs, monkeypatch):
    """So a warning comes once, and the file and the cells are each to blame for their own errors."""
    with pytest.warns(MixviWarning, match="a plain VAE"):
        build("CVAE", blobs, {"batch_key": None}).save(tmp_path / "model", save_anndata=True)
    made, init = [], mixvi.module.CVAEModule.__init__
    monkeypatch.setattr(mixvi.module.CVAEModule, "__init__", lambda *args: made.append(1) or init(*args))
    for adata in (blobs, None, False):
        with pytest.warns(MixviWarning, match="a plain VAE") as said:
            again = mixvi.CVAE.load(tmp_path / "model", adata, accelerator="cpu")
        assert len(made) == 1
        assert sum("a plain VAE" in str(one.message) for one in said) == 1
        made.clear()
        assert again.adata is (blobs if adata is blobs else again.adata)
        assert (again.adata is None) == (adata is False)


def test_a_model_without_hidden_layers_loads(tmp_path):
    model = fitted("GMVAE", datasets.blobs(n_cells=240, kind="count", seed=0), n_layers=0)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        mixvi.GMVAE.load(tmp_path / "model", model.adata, accelerator="cpu").predict(soft=True),
        model.predict(soft=True),
    )


def test_held_out_cells_of_an_earlier_version_are_of_no_use_but_load(stored, tmp_path):
    content = copy.deepcopy(stored[0])
    for name in ("latent", "depth"):
        del content["attr_dict"]["held_out_"][name]
    write_file(tmp_path / "model.pt", content)
    model = mixvi.GMVAE.load(tmp_path, stored[1])
    model.annotate()
    with pytest.raises(ValueError, match="a model that was trained by this version of mixvi"):
        model.get_outlier_p()


def test_what_cannot_be_converted_is_said(model, stored, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(ValueError, match=r"There is no .*model\.pt; pass the folder"):
        mixvi.VAE.convert_legacy_save(old, new)
    model.save(old)
    with pytest.raises(ValueError, match=r"model\.pt is in the format of mixvi already; read it with load"):
        mixvi.VAE.convert_legacy_save(old, new)
    for whole in (b"PK\x03\x04zz", b"hello", b""):
        (old / "model.pt").write_bytes(whole)
        with pytest.raises(ValueError, match=r"model\.pt is not a model that mixvi can use: .* Use a copy"):
            mixvi.VAE.convert_legacy_save(old, new)
    adata = model.adata.copy()
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.SCVI(adata).save(tmp_path / "scvi")
    with pytest.raises(ValueError, match=r"its class is SCVI, .*VAE\.from_scvi\(\) copies an SCVI"):
        mixvi.VAE.convert_legacy_save(tmp_path / "scvi", new)
    assert not new.exists()


def test_cells_are_saved_beside_the_model(model, tmp_path, capsys):
    model.save(tmp_path / "model", prefix="a_", save_anndata=True)
    again = mixvi.VAE.load(tmp_path / "model", prefix="a_", accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), rtol=1e-5)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"a_model.pt", "a_adata.h5ad"}
    assert mixvi.VAE.load_registry(tmp_path / "model", "a_")["model_name"] == "VAE"
    mixvi.VAE.view_setup_args(tmp_path / "model", "a_")
    assert "size_factor_key" in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists; pass another folder, or overwrite=True"):
        model.save(tmp_path / "model")


@pytest.fixture
def pair(model, tmp_path):
    """A folder with a model and its cells, another model, and what is in the folder."""
    model.save(tmp_path / "model", save_anndata=True)
    other = fitted("VAE", datasets.blobs(n_cells=60, kind="count", seed=5))
    return tmp_path / "model", other, {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}


@pytest.mark.parametrize("full", ["mixvi.model.saving.ad.io.write_h5ad", "mixvi.model.saving.h5py.File", "os.fsync"])
def test_a_full_disk_leaves_the_earlier_model_and_its_cells(pair, monkeypatch, full):
    folder, other, before = pair

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(full, fail)
        with pytest.raises(OSError, match="No space"):
            other.save(folder, overwrite=True, save_anndata=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_crash_between_model_and_cells_is_noticed(pair):
    folder, other, before = pair
    other.save(folder, overwrite=True, save_anndata=True)
    (folder / "adata.h5ad").rename(folder / ".adata.h5ad.1.new")
    (folder / "adata.h5ad").write_bytes(before["adata.h5ad"])
    with pytest.raises(ValueError, match=r"does not hold the cells.*stopped between.*\.adata\.h5ad\.\*\.new"):
        mixvi.VAE.load(folder)
    assert mixvi.VAE.load(folder, adata=other.adata).adata is other.adata
    (folder / ".adata.h5ad.1.new").rename(folder / "adata.h5ad")
    assert mixvi.VAE.load(folder).adata.n_obs == 60


def test_cells_that_a_user_wrote_anew_are_taken(pair):
    folder, _, _ = pair
    model = mixvi.VAE.load(folder)
    model.annotate(clustering=None)
    model.adata.write_h5ad(folder / "adata.h5ad")
    again = mixvi.VAE.load(folder)
    assert "X_mixvi" in again.adata.obsm
    again.save(folder, overwrite=True)
    mixvi.VAE.load(folder).save(folder, overwrite=True, save_anndata=True)
    mixvi.VAE.load(folder)


def test_cells_in_a_file_stay_where_they_are(tmp_path):
    datasets.blobs(60, 12, kind="count").write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = fitted("VAE", backed)
    model.save(tmp_path / "model", save_anndata=True)
    assert backed.filename == tmp_path / "cells.h5ad"
    latent = model.get_latent_representation()
    np.testing.assert_allclose(mixvi.VAE.load(tmp_path / "model").get_latent_representation(), latent, rtol=1e-5)


@pytest.mark.parametrize("minified", [False, True])
def test_the_hub_of_scvi_tools_passes_on_a_model(minified, tmp_path, monkeypatch):
    """A folder that `HubModel` writes and downloads is whole; the network is replaced by another folder."""
    hub = pytest.importorskip("huggingface_hub")
    model = fitted("GMVAE", datasets.blobs(n_cells=60, kind="count", seed=0))
    if minified:
        model.minify_adata()
    here, there, card = tmp_path / "here", tmp_path / "there", hub.ModelCard("# Blood")
    model.save(here, save_anndata=True)
    metadata = HubMetadata.from_dir(str(here), anndata_version=version("anndata"), model_parent_module="mixvi")
    assert (metadata.scvi_version, metadata.model_cls_name) == (scvi.__version__, "GMVAE")
    HubModel(str(here), metadata=metadata, model_card=card).save()

    def download(repo_id, allow_patterns, **kwargs):
        there.mkdir()
        for name in {*allow_patterns} & {path.name for path in here.iterdir()}:
            shutil.copy(here / name, there)
        return str(there)

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(hub.ModelCard, "load", lambda name: card)
    for again in (HubModel(str(here)), HubModel.pull_from_huggingface_hub("me/blood", revision="main")):
        assert isinstance(again.model, mixvi.GMVAE)
        np.testing.assert_allclose(again.model.predict(soft=True), model.predict(soft=True), rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("folder", sorted((Path(__file__).parent / "releases").iterdir()), ids=lambda path: path.name)
def test_models_of_earlier_releases_load(folder):
    """Each release adds a small GMVAE, and what it gave for its cells."""
    expected = np.load(folder / "expected.npz")
    adata = ad.AnnData(expected["cells"].astype(np.float32), obs=pd.DataFrame({"condition": expected["condition"]}))
    adata.var_names = mixvi.GMVAE.load(folder, adata=False).get_var_names()
    model = mixvi.GMVAE.load(folder, adata=adata)
    np.testing.assert_allclose(model.get_latent_representation(), expected["latent"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(soft=True), expected["probabilities"], rtol=1e-4, atol=1e-5)
    if folder.name == "0.1.0":  # before the tree had the share of confused cells
        assert model.tree.table["confusion"].isna().all()
        assert "confused" not in str(model.tree)


def test_the_best_weights_are_loaded_at_the_end(tmp_path):
    """Of a training that gets worse, by the callback of scvi-tools."""
    best = SaveCheckpoint(dirpath=str(tmp_path), monitor="elbo_validation", load_best_on_end=True)
    model = fitted("VAE", datasets.blobs(n_cells=60, kind="count"), train={"max_epochs": 3, "callbacks": [best]})
    saved = read_file(Path(best.best_model_path) / "model.pt")["model_state_dict"]
    assert all(value.equal(saved[name]) for name, value in model.module.state_dict().items())
