"""scvi-tools' AnnData manager, without a change to the user's matrix."""

from scipy.sparse import issparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager


class CellsManager(AnnDataManager):
    """Hands rows of a matrix in memory over as CSR or dense: minibatches are rows, which CSC is slow to cut out."""

    def get_from_registry(self, registry_key: str):
        """The registered data; a CSC matrix as CSR, while the user keeps the CSC."""
        data = super().get_from_registry(registry_key)
        if registry_key == REGISTRY_KEYS.X_KEY and issparse(data) and data.format != "csr":
            return data.tocsr()
        return data
