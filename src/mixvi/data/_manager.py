"""scvi-tools' AnnData manager, which does not change the user's matrix and does not keep it alive."""

import weakref
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse
from scvi.data import AnnDataManager


class CellsManager(AnnDataManager):
    """Returns a matrix in memory as CSR or as a plain array.

    Minibatches are rows, which are slow to read from CSC. Views of AnnData are arrays that torch does not accept.

    scvi-tools keeps every manager that a model class was set up with. So such a manager holds its AnnData weakly
    (`hold_weakly`): the user and the models own it.
    """

    seen: Any = None  # what setup_anndata saw, to notice changes
    _is_weak = False
    _held: AnnData | weakref.ref | None = None

    @property
    def adata(self) -> Any:
        """The registered AnnData; ``None`` if there is none, or if it was deleted."""
        return self._held() if isinstance(self._held, weakref.ref) else self._held

    @adata.setter
    def adata(self, adata: AnnData | None) -> None:
        self._held = weakref.ref(adata) if self._is_weak and adata is not None else adata
        self.seen = None

    def hold_weakly(self) -> None:
        """From now on, do not keep the AnnData alive."""
        self._is_weak, self.adata = True, self.adata

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": self.adata, "_is_weak": False}  # weak references cannot be pickled

    def get_from_registry(self, registry_key: str):
        """The registered data; the user's AnnData keeps its own type."""
        data = super().get_from_registry(registry_key)
        if isinstance(data, np.ndarray):
            return np.asarray(data)
        if issparse(data):
            return data.tocsr()
        return data
