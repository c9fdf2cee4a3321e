"""SCVI and SCANVI that make models of mixvi."""

import inspect
import os
from pathlib import Path
from typing import Any

import mixvi

used: set[str] = set()  # stand-ins that the present test has used
left_out: set[str] = set()  # parts of SCVI that it asked for, and that mixvi does not have
SIZES = ("n_latent", "n_hidden", "n_layers", "dropout_rate", "batch_representation")
SAME = {  # what mixvi's models do, and so nothing to pass on
    "use_observed_lib_size": True, "latent_distribution": "normal", "dispersion": "gene", "encode_covariates": True,
}  # fmt: skip


def _arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a model of mixvi for those of SCVI."""
    ours = {name: kwargs.pop(name) for name in SIZES if name in kwargs}
    ours["likelihood"] = kwargs.pop("gene_likelihood", "zinb")
    ours |= kwargs.pop("batch_embedding_kwargs", {})
    if kwargs.get("dispersion") == "gene-batch":
        ours["dispersion"] = kwargs.pop("dispersion")
    for name, value in kwargs.items():
        if name not in SAME or value != SAME[name]:
            left_out.add(f"{name}={value!r}" if isinstance(value, bool | str) else name)
    return ours


class _StandIn(type):
    """What is not defined here is that of the model of mixvi."""

    def __getattr__(cls, name):
        used.add(cls.__name__)
        return getattr(cls.usual, name)

    def __instancecheck__(cls, model):
        return isinstance(model, cls.models)


class SCVI(metaclass=_StandIn):
    """A VAE, or a CVAE where there is a batch or a covariate."""

    models, usual = (mixvi.VAE, mixvi.CVAE), mixvi.CVAE

    def __new__(cls, adata=None, registry=None, **kwargs):
        """Make the model for which the AnnData was set up."""
        used.add("SCVI")
        if adata is None:
            return mixvi.VAE(None, registry=registry)
        return cls._set_up(adata)(adata, **_arguments(kwargs))

    @classmethod
    def setup_anndata(cls, adata, *args, **kwargs):
        """Set up for the model that has a use for the columns. Like SCVI, it has none for labels."""
        used.add("SCVI")
        names = list(inspect.signature(mixvi.VAE.setup_anndata).parameters)[1:]
        names = [name for name in names if name != "unlabeled_category"]
        kwargs |= dict(zip(names, args, strict=False))
        kwargs.pop("labels_key", None)
        covariates = ("batch_key", "categorical_covariate_keys", "continuous_covariate_keys")
        model = mixvi.CVAE if any(kwargs.get(name) for name in covariates) else mixvi.VAE
        model.setup_anndata(adata, **kwargs)

    @classmethod
    def load(cls, dir_path: str | os.PathLike, adata=None, prefix=None, **kwargs):
        """Load the model that was saved."""
        used.add("SCVI")
        name = "CVAE"
        if Path(dir_path, f"{prefix or ''}model.pt").exists():
            name = mixvi.CVAE.load_registry(dir_path, prefix)["model_name"]
        return getattr(mixvi, name).load(dir_path, adata, prefix=prefix, **kwargs)

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata, required=False):
        return cls._set_up(adata)._get_most_recent_anndata_manager(adata, required)

    @classmethod
    def _set_up(cls, adata) -> type:
        """The class that an AnnData was last set up for."""
        for model in cls.models:
            manager = model._get_most_recent_anndata_manager(adata)
            if manager is not None and manager.id == adata.uns["_scvi_manager_uuid"]:
                return model
        return cls.usual


class Module(metaclass=_StandIn):
    """The module of SCVI."""

    models, usual = (mixvi.module.VAEModule, mixvi.module.CVAEModule), mixvi.module.CVAEModule


class SCANVI(metaclass=_StandIn):
    """A GMVAE with labels."""

    models, usual = (mixvi.GMVAE,), mixvi.GMVAE

    def __new__(cls, adata=None, registry=None, **kwargs):
        """Make a GMVAE."""
        used.add("SCANVI")
        return mixvi.GMVAE(adata, **_arguments(kwargs))

    @classmethod
    def setup_anndata(cls, adata, labels_key, unlabeled_category, layer=None, batch_key=None, **kwargs):
        """Set up a GMVAE."""
        used.add("SCANVI")
        kwargs |= {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        mixvi.GMVAE.setup_anndata(adata, layer=layer, batch_key=batch_key, **kwargs)
