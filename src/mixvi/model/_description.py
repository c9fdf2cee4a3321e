"""What a model says of itself: in print, and in the AnnData that it annotates."""

from typing import Any

from scvi import REGISTRY_KEYS

from mixvi.model._conditions import ConditionedModel


class DescribedModel(ConditionedModel):
    """Abstract: `summary_string`."""

    def _settings(self) -> dict[str, Any]:
        """What goes into ``.uns``: only values that any file format can hold."""
        params = self.init_params_["non_kwargs"]
        return {
            "model": type(self).__name__,
            "version": self.mixvi_version_,
            "settings": {key: value if value is not None else "None" for key, value in params.items()},
            "setup": {key: value for key, value in self.registry_["setup_args"].items() if value is not None},
            **self._found(),
        }

    def _found(self) -> dict[str, Any]:
        """What was not set but found."""
        return {"likelihood": self.likelihood_}

    @property
    def summary_string(self) -> str:
        """What ``print(model)`` shows."""
        counted = self.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        params = self.init_params_["non_kwargs"]
        asked = {key: params[key] for key in ("n_latent", "n_clusters") if params.get(key) is not None}
        facts = asked | (self._found() if self.is_trained_ else {"likelihood": self.likelihood_})
        return (
            f"{type(self).__name__} of {counted['n_obs']:,} cells x {counted['n_vars']:,} genes: "
            + ", ".join(f"{name} {value}" for name, value in facts.items())
            + super().summary_string
        )
