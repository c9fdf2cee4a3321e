"""Cells in zarr stores: ``.obs`` and ``.var`` in memory, and a matrix on disk that is read by rows."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from os import PathLike

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSRDataset
from anndata.utils import make_index_unique
from scipy.sparse import csr_matrix, vstack

from mixvi.data._matrix import runs

SECTION = 4096  # rows read at once; bounds the memory for rows that are far apart


class ZarrMatrix(CSRDataset):
    """CSR matrices of zarr stores, stacked by rows; read-only.

    A subclass of anndata's type for a sparse matrix on disk, which AnnData accepts as ``.X``. After the first read, row
    offsets stay in memory, 8 bytes a cell.

    Parameters
    ----------
    matrices
        (n_i, g) each, from :func:`anndata.io.sparse_dataset`.
    paths
        The stores that they are in.
    """

    backend = "zarr"

    def __init__(self, matrices: Sequence[CSRDataset], paths: Sequence[str | PathLike] = ()):
        self._matrices, self._paths = list(matrices), list(paths)
        self._sampler = _sampler()
        self._loader: Iterable[dict] | None = None

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]  # anndata declares an attribute, and has a property
        """Numbers of cells and genes."""
        return sum(matrix.shape[0] for matrix in self._matrices), self._matrices[0].shape[1]

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]  # likewise
        """Dtype of the values."""
        return np.result_type(*(matrix.dtype for matrix in self._matrices))

    def __repr__(self) -> str:
        return f"ZarrMatrix: {len(self._matrices)} stores, shape {self.shape}, data_dtype {self.dtype}"

    def __getitem__(self, index) -> csr_matrix:
        """Read rows: row numbers in any order, a slice or a mask. A second index chooses genes."""
        rows, genes = index if isinstance(index, tuple) else (index, slice(None))
        found = self._read(np.arange(self.shape[0])[rows].ravel())
        every_gene = isinstance(genes, slice) and genes == slice(None)
        return found if every_gene else found[:, np.arange(self.shape[1])[genes].ravel()]

    def stores(self) -> Iterator[tuple[str | PathLike, np.ndarray]]:
        """Path of each store, and the rows (m,) that come from it."""
        ends = np.cumsum([matrix.shape[0] for matrix in self._matrices])
        yield from zip(self._paths, np.split(np.arange(ends[-1]), ends[:-1]), strict=True)

    def to_memory(self) -> csr_matrix:
        """The whole matrix."""
        return self[:]

    def copy(self) -> "ZarrMatrix":
        """The same object: it is read-only, and a copy may not fit in memory."""
        return self

    def _read(self, rows: np.ndarray) -> csr_matrix:
        once, place = np.unique(rows, return_inverse=True)
        if not len(once):
            return csr_matrix((0, self.shape[1]), dtype=self.dtype)
        with _codecs():  # arrays choose codecs when the loader opens them, at its first rows
            if self._loader is None:
                self._loader = _loader(self._matrices, self._sampler)
            self._sampler.rows = once
            found = [part["X"] for part in self._loader]
        found = found[0] if len(found) == 1 else vstack(found, "csr")
        return found if len(place) == len(once) and (np.diff(place) == 1).all() else found[place]


def from_zarr(
    path_or_paths: str | PathLike | Sequence[str | PathLike],
    layer: str | None = None,
    obs_columns: Sequence[str] | None = None,
    obs_names: bool = True,
) -> AnnData:
    """Open an AnnData in zarr stores without loading its matrix.

    ``.obs`` and ``.var`` are in memory, and ``annotate`` writes there. Only ``annotate_store`` writes into the stores.
    Models read ``.X`` block by block (see ``data_path`` of ``train``). A view of some cells or genes is read into
    memory when you copy it or use its ``.X``.

    Parameters
    ----------
    path_or_paths
        One or more stores from anndata or `to_zarr`, with the same genes in the same order. They are stacked in this
        order, and names of cells become unique.
    layer
        The layer that becomes ``.X``; ``None`` is the stores' ``.X``. It must be CSR.
    obs_columns
        Columns of ``.obs`` to read; ``None`` reads the columns that every store has.
    obs_names
        Whether to read the names of cells, which take 0.2 GB a million. ``False`` saves this memory and numbers the
        cells in the order of the stores; in a file the numbers become ``"0"``, ``"1"``, ....

    Returns
    -------
    n cells x g genes, with ``.X``, ``.obs`` and the ``.var`` of the first store only.

    Raises
    ------
    ImportError
        If the packages of ``mixvi[large]`` are missing.
    FileNotFoundError
        If there is no store.
    ValueError
        If no store is given, a matrix is not CSR, or genes differ between stores.
    KeyError
        If a layer or column does not exist.
    """
    needs_large("from_zarr")
    paths = [path_or_paths] if isinstance(path_or_paths, str | PathLike) else list(path_or_paths)
    if not paths:
        raise ValueError("from_zarr got no store; pass one path, or a list of them.")
    obs, matrices, var = [], [], None
    for path in paths:
        group = _open(path)
        matrices.append(_matrix(group, layer, path))
        n_numbered = None if obs_names else matrices[-1].shape[0]
        obs.append(_obs(group["obs"], obs_columns, n_numbered, path))
        if var is None:
            var = read_table(group["var"])
        check_same_genes(var.index, _index(group["var"]), path, paths[0])
    obs, x = stack_obs(obs), ZarrMatrix(matrices, paths)
    return AnnData(x, obs=obs, var=var) if obs_names else _numbered(x, obs, var)


def needs_large(name: str) -> None:
    """Check that the packages of ``mixvi[large]`` are installed, for the function of this name."""
    try:
        import annbatch  # noqa: F401
        import zarr  # noqa: F401
        import zarrs  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'mixvi.data.{name} needs {error.name}; pip install "mixvi[large]" installs all that it needs.'
        ) from error


def read_table(group) -> pd.DataFrame:
    """A table in an open file, such as ``.obs``."""
    return ad.io.read_elem(group)


def check_same_genes(expected: pd.Index, found: pd.Index, path, first) -> None:
    """Check that two files have the same genes in the same order.

    Parameters
    ----------
    expected, found
        (g,) genes of the first file and of this one.
    path, first
        Paths of this file and of the first, for the message.

    Raises
    ------
    ValueError
        If they differ.
    """
    if expected.equals(found):
        return
    if len(expected) != len(found):
        what = f"{len(found):,} genes where {first} has {len(expected):,}"
    else:
        at = int(np.flatnonzero(np.asarray(expected) != np.asarray(found))[0])
        what = f"gene {found[at]!r} in place {at}, where {first} has {expected[at]!r}"
    raise ValueError(f"{path} has {what}; write all files with the same genes in the same order, by adata[:, genes].")


def stack_obs(obs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Stack the columns that all tables have; categories are united, and names or numbers become unique."""
    if all(isinstance(part.index, pd.RangeIndex) for part in obs):
        names = pd.RangeIndex(sum(map(len, obs)))
    else:
        names = pd.Index(np.concatenate([part.index.to_numpy(dtype=str) for part in obs]), dtype=object)
    columns = [key for key in obs[0] if all(key in part for part in obs)]
    together = {}
    for key in columns:
        parts = [part[key].reset_index(drop=True) for part in obs]
        if len(parts) > 1 and all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            together[key] = pd.api.types.union_categoricals(parts, ignore_order=True)
        else:
            together[key] = pd.concat(parts, ignore_index=True).array
    return pd.DataFrame(together, index=names if names.is_unique else make_index_unique(names))


def _numbered(x: ZarrMatrix, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """An AnnData with the numbers of ``obs`` as names. AnnData() would make strings of them, so they come later."""
    same_name = pd.CategoricalIndex(pd.Categorical.from_codes(np.zeros(len(obs), np.int8), ["cell"]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        adata = AnnData(x, obs=pd.DataFrame(index=same_name), var=var)
    adata.obs_names = obs.index
    for key in obs:
        adata.obs[key] = obs[key]
    return adata


def _open(path):
    import zarr

    try:
        with _codecs():
            return zarr.open_group(path, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no zarr store at {path}; mixvi.data.to_zarr makes one from .h5ad files."
        ) from error


def _matrix(group, layer: str | None, path) -> CSRDataset:
    where = "X" if layer is None else f"layers/{layer}"
    if where not in group:
        there = sorted(group["layers"]) if "layers" in group else []
        raise KeyError(f"{path} has no {where!r}; its layers are {there}, and layer=None takes X.")
    found = group[where].attrs.get("encoding-type", "unknown")
    if found != "csr_matrix":
        raise ValueError(
            f"{path} has {where!r} as {found!r}, from which rows are slow to read; it must be 'csr_matrix'. "
            "mixvi.data.to_zarr writes this format."
        )
    return ad.io.sparse_dataset(group[where], should_cache_indptr=False)  # type: ignore[return-value]  # it is CSR


def _obs(group, columns: Sequence[str] | None, n_numbered: int | None, path) -> pd.DataFrame:
    there = list(group.attrs["column-order"])
    columns = there if columns is None else columns
    if missing := [key for key in columns if key not in there]:
        raise KeyError(f"{path} has no columns {missing} in .obs; the columns are {there}.")
    index = _index(group) if n_numbered is None else pd.RangeIndex(n_numbered)
    return pd.DataFrame({key: pd.Series(ad.io.read_elem(group[key])).array for key in columns}, index=index)


def _index(group) -> pd.Index:
    return pd.Index(ad.io.read_elem(group[group.attrs["_index"]]))


def _codecs():
    """Context that decodes in Rust on all cores."""
    import zarr

    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if find_spec("zarrs") else {})


def _loader(matrices: Sequence[CSRDataset], sampler):
    from annbatch import Loader

    loader = Loader(batch_sampler=sampler, preload_to_gpu=False)
    for matrix in matrices:
        loader.add_dataset(matrix)
    return loader


def _sampler():
    from annbatch.abc import Sampler

    class Rows(Sampler):
        """Requests rising row numbers (m,), without repeats, as runs of neighbours."""

        rows = np.arange(0)
        batch_size = SECTION
        shuffle = False

        def n_batches(self, n_obs: int) -> int:
            return -(-len(self.rows) // SECTION)

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Iterator[dict]:
            for start in range(0, len(self.rows), SECTION):
                first, last, place = runs(self.rows[start : start + SECTION])
                requests = [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]
                yield {"requests": requests, "splits": [place]}

    return Rows()
