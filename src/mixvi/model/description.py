"""Summary of a model, for ``print(model)`` and for ``.uns``."""

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def settings(model: "LatentModel") -> dict[str, Any]:
    """Entries of ``.uns``: only values that any file format can hold."""
    params = model.init_params_["non_kwargs"]
    return {
        "model": type(model).__name__,
        "version": model.mixvi_version_,
        "settings": {key: value if value is not None else "None" for key, value in params.items()},
        "setup": {key: value for key, value in model.registry_["setup_args"].items() if value is not None},
        "likelihood": model.likelihood_,
        **model._found(),
    }


def summary(model: "LatentModel") -> str:
    """The model, its data and what was found, in one line."""
    params = model.init_params_["non_kwargs"]
    facts = {key: params[key] for key in ("n_latent", "n_clusters") if params.get(key) is not None}
    facts |= {"likelihood": model.likelihood_} | (model._found() if model.is_trained_ else {})
    return f"{size_of(model)}: " + ", ".join(f"{name} {value}" for name, value in facts.items())


def size_of(model: "LatentModel") -> str:
    """The model, and how many cells and genes it has."""
    counted = model.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    return f"{type(model).__name__} of {counted['n_obs']:,} cells x {counted['n_vars']:,} genes"
