"""Fields of scvi-tools' registry: labels, with the unlabelled category last, and columns without a use."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data.fields import CategoricalObsField

from mixvi._warnings import warn

MISSING = "missing label"  # in the place of NaN, whose text might be a class


class LabelsField(CategoricalObsField):
    """A column of ``.obs`` with classes, and one category that means "no label".

    Classes are the values that occur, as text, in alphabetical order. The unlabelled category follows them, even if no
    cell has it.
    """

    def __init__(self, registry_key: str, obs_key: str, no_label: str):
        super().__init__(registry_key, obs_key)
        self._original_attr_key = obs_key  # scvi-tools takes a column of the name 0 for none
        self.no_label = str(no_label)

    def register_field(self, adata: AnnData) -> dict:
        """Find the classes, and write their codes."""
        super().validate_field(adata)
        classes = sorted(set(self._names(adata)) - {self.no_label})
        return self._write(adata, [*classes, self.no_label])

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Write the codes of known classes to another AnnData.

        Its cells are unlabelled if the column is not there, or if their label is missing or of a new class. The column
        does not change.

        Parameters
        ----------
        state_registry
            State of the field from `register_field`.
        adata_target
            AnnData to write to.
        **kwargs
            Not used; scvi-tools passes them.

        Returns
        -------
        State of the field in the other AnnData.
        """
        known = [str(name) for name in state_registry[self.CATEGORICAL_MAPPING_KEY]]
        names = self._names(adata_target)
        if (new := ~names.isin(known)).any():
            example = max(names[new], key=lambda name: name != MISSING)
            warn(
                f".obs[{self._original_attr_key!r}] has labels that are missing or that the model does not know, such "
                f"as {example!r}, in {new.sum():,} of {len(new):,} cells. The model reads these cells as "
                f"unlabelled, and the column stays as it is. It knows {known}."
            )
        return self._write(adata_target, known)

    def validate_field(self, adata: AnnData) -> None:
        """Check that the column is there, unless its codes are."""
        if self.attr_key not in adata.obs:
            super().validate_field(adata)

    def _names(self, adata: AnnData) -> pd.Series:
        if self._original_attr_key not in adata.obs:
            return pd.Series(self.no_label, adata.obs_names)
        column = adata.obs[self._original_attr_key]
        return column.astype(object).where(column.notna(), MISSING).astype(str)

    def _write(self, adata: AnnData, names: list[str]) -> dict:
        codes = pd.Index(names).get_indexer(self._names(adata))
        adata.obs[self.attr_key] = np.where(codes < 0, len(names) - 1, codes).astype(np.int64)
        mapping = np.array(names, dtype=object)
        return {self.CATEGORICAL_MAPPING_KEY: mapping, self.ORIGINAL_ATTR_KEY: self._original_attr_key}


class UnusedField(CategoricalObsField):
    """Batches or labels of a model that uses none: one category for all cells, as `scvi.model.SCVI` has it.

    Tools of scvi-tools look for it in the registry. No model reads it.

    Parameters
    ----------
    registry_key
        Name in the registry, such as ``scvi.REGISTRY_KEYS.BATCH_KEY``.
    """

    def __init__(self, registry_key: str):
        super().__init__(registry_key, None)

    def register_field(self, adata: AnnData) -> dict:
        """Write zeros."""
        self._original_attr_key = self.attr_key
        adata.obs[self.attr_key] = np.zeros(adata.n_obs, np.int8)
        return {self.CATEGORICAL_MAPPING_KEY: np.zeros(1, np.int64), self.ORIGINAL_ATTR_KEY: self.attr_key}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs) -> dict:
        """Write zeros to another AnnData.

        Parameters
        ----------
        state_registry, **kwargs
            Not used; scvi-tools passes them.
        adata_target
            AnnData to write to.
        """
        return self.register_field(adata_target)
