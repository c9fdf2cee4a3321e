"""scvi-tools' AnnData manager, without a change to the user's matrix."""

import numpy as np
from scipy.sparse import issparse
from scvi.data import AnnDataManager


class CellsManager(AnnDataManager):
    """Hands a matrix in memory over as CSR or as a plain array.

    Minibatches are rows, which CSC is slow to cut out, and views of AnnData are arrays that torch does not take.
    """

    def get_from_registry(self, registry_key: str):
        """The registered data, while the user keeps theirs."""
        data = super().get_from_registry(registry_key)
        if isinstance(data, np.ndarray):
            return np.asarray(data)
        if issparse(data):
            return data.tocsr()
        return data
