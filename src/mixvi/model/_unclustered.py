"""Models without clusters of their own."""

from mixvi.model._base import LatentModel


class UnclusteredMixin(LatentModel):
    """Abstract: no probabilities to write, no component to draw from."""

    def _probabilities(self, adata, indices, batch_size) -> None:
        return None

    def _component_index(self, component) -> int:
        raise ValueError(
            f"component={component!r} was asked of {type(self).__name__}, which has none; use mixvi.GMVAE."
        )
