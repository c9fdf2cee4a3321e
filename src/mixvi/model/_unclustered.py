"""Models without clusters of their own."""


class UnclusteredMixin:
    """Abstract: no probabilities to write, no component to draw from."""

    def _found(self) -> dict:
        return {}

    def _phases(self, max_epochs, n_epochs_pretrain) -> None:
        return None

    def _probabilities(self, adata, indices, batch_size, n_clusters) -> None:
        if n_clusters is not None:
            raise ValueError(f"n_clusters={n_clusters} was asked of {type(self).__name__}; use mixvi.GMVAE.")

    def _tables(self, n_clusters) -> dict:
        return {}

    def _component_index(self, component) -> int:
        raise ValueError(
            f"component={component!r} was asked of {type(self).__name__}, which has none; use mixvi.GMVAE."
        )
