"""Saving and loading of a model: one file that holds no code, and replaces an earlier one all at once."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import anndata as ad
import h5py
import numpy as np
import pooch
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from mixvi._atomic import replacing
from mixvi._cells_file import read_cells
from mixvi._file import check_keys, is_own, read_file, refusing, to_bytes, write_file
from mixvi._tell import quiet
from mixvi._version import __version__
from mixvi._warnings import warn
from mixvi.data import has_values, minified_type
from mixvi.model._rebuild import attach, attributes_of, rebuild
from mixvi.model.registry import layout_of
from mixvi.model.unchanged import is_of_training
from mixvi.train import Clusters

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel

# Names of scvi-tools, whose tools read our files too.
MODEL, CELLS = "model.pt", "adata.h5ad"
ATTRIBUTES, STATE, GENE_NAMES = "attr_dict", "model_state_dict", "var_names"
DATA_UNIT = "likelihood.center", "likelihood.unit"  # which linear models of mixvi 0.1.0 do not have
CLASS_NAMES = ("AE", "VAE", "CVAE", "GMVAE")
MAY_BE_UNKNOWN = {"worth", "error", "between", "confusion", "connectivity", "min_worth", "accuracy"}  # of clusters_
PAIR = "mixvi_saved"  # in both files: the same text, if they were saved together


def save(
    model: "LatentModel",
    dir_path: str | os.PathLike,
    prefix: str | None = None,
    overwrite: bool = False,
    save_anndata: bool = False,
    **anndata_write_kwargs,
) -> None:
    """Save the model. The file holds plain values and tensors, so that loading it runs no code.

    An earlier model in the folder stays whole until the new one is written: if saving fails, it is still there, and so
    are its cells.

    Parameters
    ----------
    dir_path
        Folder; it is made if it does not exist.
    prefix
        Put before the names of the files.
    overwrite
        Replace a model in a folder that exists.
    save_anndata
        Save the cells too, as ``adata.h5ad``.
    **anndata_write_kwargs
        Of :meth:`anndata.AnnData.write_h5ad`.

    Raises
    ------
    ValueError
        If the folder exists and ``overwrite`` is ``False``, or there are no cells to save.
    """
    folder = Path(dir_path)
    if folder.exists() and not overwrite:
        raise ValueError(f"{folder} exists; pass another folder, or overwrite=True to replace the model in it.")
    if save_anndata and model.adata is None:
        raise ValueError(f"This {type(model).__name__} was loaded without data, so save_anndata=True has none to save.")
    content = _content(attributes_of(model), model.module.state_dict(), __version__)
    if save_anndata:
        content[PAIR] = uuid4().hex
    paths = [folder / f"{prefix or ''}{name}" for name in (MODEL, CELLS)[: 1 + save_anndata]]
    whole = to_bytes(content, MODEL)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(*paths) as new:
        new[0].write_bytes(whole)
        if save_anndata:
            ad.io.write_h5ad(new[1], model.adata, **anndata_write_kwargs)  # its method would move backed cells there
            with h5py.File(new[1], "a") as file:
                file.attrs[PAIR] = content[PAIR]


def load(
    cls: type["LatentModel"], dir_path: str | os.PathLike, adata: AnnData | Literal[False] | None, device: torch.device,
    prefix: str | None, backup_url: str | None,
) -> "LatentModel":  # fmt: skip
    """A model from a folder; see `LatentModel.load`.

    Parameters
    ----------
    cls
        Class of the saved model.
    dir_path, adata, prefix, backup_url
        As in `LatentModel.load`.
    device
        Where the weights go.
    """
    folder = Path(dir_path)
    path, content = _read(folder, prefix, backup_url)
    registry = content[ATTRIBUTES]["registry_"]
    if registry["model_name"] != cls.__name__:
        name = registry["model_name"]
        raise ValueError(f"{folder} holds a {name}, not a {cls.__name__}; load it with mixvi.{name}.load().")
    with refusing(path, "model", content["version"]):  # without cells: so they are not to blame
        model = _made(cls, registry, content)
        inspect.signature(cls.setup_anndata).bind(None, **registry["setup_args"])
    cells = folder / f"{prefix or ''}{CELLS}"
    if beside := adata is None and cells.exists():
        adata = read_cells(cells)
        _check_pair(content, cells)
    elif adata is None:
        warn(f"There are no cells in {folder}, and none were passed as adata: the {cls.__name__} is loaded without.")
    adata = None if adata is False else adata
    if adata is not None:
        _check_genes(cls, folder, registry, adata)
        _check_minified(cls, folder, registry, adata)
        cls.setup_anndata(adata, source_registry=registry, **registry["setup_args"])
        attach(model, adata)
    model.to_device(device)
    is_mapped = model.unseen_ is not None  # and so has other cells
    if beside and not is_mapped and has_values(model.adata) and not is_of_training(model):
        warn(f"The cells in {cells} are not those that the model was trained on; an earlier model may have saved them.")
    return model


def load_registry(dir_path: str | os.PathLike, prefix: str | None = None) -> dict[str, Any]:
    """What was registered with the AnnData of a saved model; see `LatentModel.load_registry`.

    Parameters
    ----------
    dir_path, prefix
        As in `LatentModel.load`.
    """
    _, content = _read(Path(dir_path), prefix, None)
    return content[ATTRIBUTES]["registry_"]


def convert(
    dir_path: str | os.PathLike, output_dir_path: str | os.PathLike, overwrite: bool, prefix: str | None
) -> None:
    """Convert a file of the pickled format; see `LatentModel.convert_legacy_save`.

    Parameters
    ----------
    dir_path, output_dir_path, overwrite, prefix
        As in `LatentModel.convert_legacy_save`.
    """
    path, folder = Path(dir_path, f"{prefix or ''}{MODEL}"), Path(output_dir_path)
    if folder.exists() and not overwrite:
        raise ValueError(f"{folder} exists; pass another folder, or overwrite=True to replace the model in it.")
    _check_there(path)
    if is_own(path):
        raise ValueError(f"{path} is in the format of mixvi already; read it with load().")
    with refusing(path, "model"):
        stored = torch.load(path, map_location="cpu", weights_only=False)  # nosec B614 # as its documentation says
        state = {name: value for name, value in stored[STATE].items() if name != "pyro_param_store"}
        content = _content(stored[ATTRIBUTES], state, "")
        _check(content)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / path.name, content)


def _content(attributes: dict[str, Any], state: dict[str, torch.Tensor], version: str) -> dict[str, Any]:
    """What the file of a model holds."""
    genes = attributes["registry_"]["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    return {"version": version, ATTRIBUTES: attributes, STATE: state, GENE_NAMES: np.asarray(genes)}


def _read(folder: Path, prefix: str | None, backup_url: str | None) -> tuple[Path, dict[str, Any]]:
    """A file and what is in it. It is downloaded if it is not there."""
    path = folder / f"{prefix or ''}{MODEL}"
    if not path.exists():
        if not backup_url:
            _check_there(path)
        with quiet(pooch.get_logger().name):
            pooch.retrieve(backup_url, known_hash=None, fname=path.name, path=folder)
    content = read_file(path)
    content["version"] = str(content.get("version", ""))
    with refusing(path, "model", content["version"]):
        _check(content)
    return path, content


def _check_there(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"There is no {path}; pass the folder that save() wrote, and its prefix if it had one.")


def _check(content: dict[str, Any]) -> None:
    """Raise a ValueError if what is in a file is not all of a model, or of another package."""
    check_keys(content, {ATTRIBUTES, STATE})
    attributes = content[ATTRIBUTES]
    check_keys(attributes, {"registry_", "init_params_", "is_trained_", "history_"})
    registry = attributes["registry_"]
    check_keys(registry, {"model_name", "setup_args", "setup_method_name", "field_registries"})
    if (name := registry["model_name"]) not in CLASS_NAMES:
        raise ValueError(f"its class is {name}, which is not of this mixvi (mixvi.VAE.from_scvi() copies an SCVI)")
    layout_of(registry)
    if name == "GMVAE":
        check_keys(attributes, {"clusters_"})
    clusters, held_out = attributes.get("clusters_") or {}, attributes.get("held_out_") or {}
    for part, values in (("clusters_", clusters), ("held_out_", held_out)):
        if unknown := sorted(_not_finite(values)):
            raise ValueError(f"{unknown} in its {part} are not finite numbers")
    if clusters:
        Clusters.from_dict(clusters)


def _not_finite(values: dict[str, Any]) -> Iterator[str]:
    """Names of numbers that are not finite, and should be."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _not_finite(value)
        elif name not in MAY_BE_UNKNOWN and isinstance(value, float | np.ndarray) and not np.isfinite(value).all():
            yield name


def _check_pair(content: dict[str, Any], cells: Path) -> None:
    """Raise if a model and the cells beside it were each saved with others."""
    with h5py.File(cells) as file:
        own, other = content.get(PAIR), file.attrs.get(PAIR)
    if None not in (own, other) and own != other:  # None: saved without cells since, or cells that were written anew
        raise ValueError(
            f"{cells} does not hold the cells that were saved with the model beside it: save() was stopped between the "
            f"two files, or one was replaced. If there is a file .{cells.name}.*.new, it holds them: rename it to "
            f"{cells.name}. Or load the model with its cells as adata, or with adata=False."
        )


def _made(cls: type["LatentModel"], registry: dict[str, Any], content: dict[str, Any]) -> "LatentModel":
    """The model in a file without cells, with its weights, which must be finite and of this model."""
    for name, value in content[STATE].items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"its weights {name!r} are not finite numbers")
    model = rebuild(cls, None, registry, content[ATTRIBUTES])
    unit = {key: one for key, one in model.module.state_dict().items() if key in DATA_UNIT}  # 0 and 1 of a new module
    model.module.load_state_dict(unit | content[STATE])
    return model


def _check_genes(cls: type["LatentModel"], folder: Path, registry: dict[str, Any], adata: AnnData) -> None:
    """Raise if an AnnData has other genes than a saved model."""
    genes = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    if isinstance(adata, AnnData) and not np.array_equal(adata.var_names.astype(str), np.asarray(genes, dtype=str)):
        raise ValueError(
            f"The AnnData has {adata.n_vars:,} genes, which are not those of the {cls.__name__} in {folder} "
            "or in another order. Pass adata[:, names].copy() with the names in the order of training; "
            f"{cls.__name__}.load(path, adata=False).get_var_names() gives them."
        )


def _check_minified(cls: type["LatentModel"], folder: Path, registry: dict[str, Any], adata: AnnData) -> None:
    """Raise if cells are minified, and the model was saved before it minified its own."""
    minified = isinstance(adata, AnnData) and minified_type(adata) is not None
    if minified and REGISTRY_KEYS.MINIFY_TYPE_KEY not in registry["field_registries"]:
        raise ValueError(
            f"The AnnData is minified, and the {cls.__name__} in {folder} was saved before minify_adata(), so it may "
            "not be the model that minified it. Pass the AnnData with its values, or save the minified model."
        )
