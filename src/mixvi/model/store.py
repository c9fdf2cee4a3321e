"""Writing of results into zarr stores: `annotate_store`, a method of `LatentModel`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix

from mixvi._checks import check_whole
from mixvi.data import Entries, ZarrMatrix, check_store, write_entries
from mixvi.model import description
from mixvi.model._novelty import Novelty, has_held_out
from mixvi.model.annotation import columns
from mixvi.model.streaming import check_trained

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._predict import Encoded


def annotate_store(
    model: "LatentModel",
    adata: AnnData | None = None,
    key_added: str = "mixvi",
    n_clusters: int | None = None,
    n_probabilities: int = 5,
) -> None:
    """Write what the model found into the zarr stores of the cells, block by block.

    The names are those of ``annotate``, with one difference: ``.obsm["mixvi_probabilities"]`` is a sparse matrix
    (n, K) of the largest probabilities of each cell. Column k belongs to category k of ``.obs["mixvi"]``. The AnnData
    in memory does not change. `from_zarr` then reads the new columns, and :func:`anndata.read_zarr` all of it.

    About 40 bytes a cell are in memory, and a few thousand cells. The results move into the store when they are
    complete, so a stop before that changes nothing; a folder ``....unfinished-...`` may stay beside the store. Call
    again if the process was killed.

    Parameters
    ----------
    adata
        Cells from `mixvi.data.from_zarr`; ``None`` is the AnnData of the model. New cells need the model's genes and
        covariates.
    key_added
        The ``mixvi`` in the names above.
    n_clusters
        GMVAE: cut the tree of clusters into so many; ``None`` takes those of ``predict()``.
    n_probabilities
        GMVAE: number of probabilities that are kept for each cell. With K or more, they sum to 1.

    Raises
    ------
    ValueError
        If `from_zarr` did not open the cells, a store is not a folder, or other data have one of the names.
    """
    check_trained(model)
    check_whole("n_probabilities", n_probabilities)
    cells = model.adata if adata is None else adata
    if cells is None or cells.is_view or not isinstance(cells.X, ZarrMatrix):
        raise ValueError(
            "annotate_store() writes into zarr stores, but mixvi.data.from_zarr did not open these cells. Use "
            "annotate() for cells in memory."
        )
    names = model._cut(n_clusters)
    for path, _ in cells.X.stores():
        check_store(path, key_added)
    axes = model._axes()
    varm = {} if axes is None else {f"PCs_{key_added}": axes}
    uns = description.settings(model) | model._tables(n_clusters)
    novelty = Novelty(model, adata) if names and has_held_out(model) else None
    for path, rows in cells.X.stores():
        found = model._encode(adata, len(names), rows, novelty)
        write_entries(path, key_added, _entries(found, key_added, names, n_probabilities), uns, varm)


def _entries(encoded: Iterator["Encoded"], key_added: str, names: list[str], most: int) -> Iterator[Entries]:
    for latent, p, outlier_p in encoded:
        found = Entries({}, {f"X_{key_added}": latent})
        if names:
            found.obsm[f"{key_added}_probabilities"] = _largest(p, most)
            for end, values in columns(names, p, outlier_p).items():
                small = values.astype(np.float32) if isinstance(values, np.ndarray) else values
                found.obs[f"{key_added}{end}"] = small
        yield found


def _largest(p: np.ndarray, most: int) -> csr_matrix:
    """The largest entries of each row (n, K), as a sparse matrix of single precision."""
    most = min(most, p.shape[1])
    kept = np.sort(np.argpartition(-p, most - 1, axis=1)[:, :most], 1)
    offset = np.arange(0, kept.size + 1, most)
    return csr_matrix((np.take_along_axis(p, kept, 1).astype(np.float32).ravel(), kept.ravel(), offset), p.shape)
