"""Data for a model: checks of values and columns, and rows in any order from memory or disk."""

from mixvi.data._annotation import annotation_keys, check_free, file_names, is_name, is_writable, own_columns, own_keys
from mixvi.data._columns import (
    as_positions,
    check_columns,
    check_layer,
    check_levels,
    check_names,
    check_present,
    stand_in,
)
from mixvi.data._fingerprint import column_fingerprint, fingerprint, same_values
from mixvi.data._genes import Aligned, align_genes, with_genes
from mixvi.data._labels import LabelsField, UnusedField
from mixvi.data._loader import CellsDataset, CellsSplitter
from mixvi.data._manager import CellsManager
from mixvi.data._minified import (
    MEAN,
    TOTAL,
    VARIANCE,
    WITH_VALUES,
    WITHOUT_VALUES,
    copy_posterior,
    has_values,
    minified_copy,
    minified_fields,
    minified_type,
)
from mixvi.data._support import Find, Support, check_dtype, check_support, choose_likelihood, describe
from mixvi.data._to_disk import check_target, write_blocks
from mixvi.data._to_store import Entries, check_store, write_entries
from mixvi.data._to_zarr import to_zarr
from mixvi.data._zarr import ZarrMatrix, from_zarr

__all__ = [
    "Aligned",
    "MEAN",
    "TOTAL",
    "UnusedField",
    "VARIANCE",
    "WITHOUT_VALUES",
    "WITH_VALUES",
    "CellsDataset",
    "CellsManager",
    "CellsSplitter",
    "Entries",
    "Find",
    "LabelsField",
    "Support",
    "ZarrMatrix",
    "align_genes",
    "annotation_keys",
    "as_positions",
    "check_columns",
    "check_dtype",
    "check_free",
    "check_layer",
    "check_levels",
    "check_names",
    "check_present",
    "check_store",
    "check_support",
    "check_target",
    "choose_likelihood",
    "column_fingerprint",
    "copy_posterior",
    "describe",
    "file_names",
    "fingerprint",
    "from_zarr",
    "has_values",
    "is_name",
    "is_writable",
    "minified_copy",
    "minified_fields",
    "minified_type",
    "own_columns",
    "own_keys",
    "same_values",
    "stand_in",
    "to_zarr",
    "with_genes",
    "write_blocks",
    "write_entries",
]
