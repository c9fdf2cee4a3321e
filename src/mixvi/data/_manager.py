"""scvi-tools' AnnData manager, which does not change the user's matrix."""

import numpy as np
from scipy.sparse import issparse
from scvi.data import AnnDataManager


class CellsManager(AnnDataManager):
    """Returns a matrix in memory as CSR or as a plain array.

    Minibatches are rows, which are slow to read from CSC. Views of AnnData are arrays that torch does not accept.
    """

    def get_from_registry(self, registry_key: str):
        """The registered data; the user's AnnData keeps its own type."""
        data = super().get_from_registry(registry_key)
        if isinstance(data, np.ndarray):
            return np.asarray(data)
        if issparse(data):
            return data.tocsr()
        return data
