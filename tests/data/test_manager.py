"""What is registered, as rows; and a manager that does not keep its cells alive."""

import gc
import pickle
import weakref

import anndata as ad
import numpy as np
from scipy.sparse import csc_matrix

from mixvi import VAE, datasets
from mixvi.data import CellsManager
from mixvi.data._matrix import HostMatrix
from mixvi.ops.csr import dense


def test_the_manager_hands_csc_over_as_csr(counts):
    counts.layers["csc"] = csc_matrix(counts.X)
    VAE.setup_anndata(counts, layer="csc")
    model = VAE(counts)
    found = HostMatrix(model.adata_manager.get_from_registry("X"), False).rows([7, 2, 2, 11, 0])
    np.testing.assert_array_equal(dense(found).numpy(), counts.layers["csc"].toarray()[[7, 2, 2, 11, 0]])


def test_the_matrix_of_a_view_is_a_plain_array_and_the_users_stays(counts):
    twice = ad.concat([counts, counts], index_unique="-")
    view = twice[::2]
    VAE.setup_anndata(view)
    found = VAE(view).adata_manager.get_from_registry("X")
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, twice.X[::2])
    counts.X = csc_matrix(counts.X)
    VAE.setup_anndata(counts)
    assert VAE(counts).adata_manager.get_from_registry("X").format == "csr"
    assert counts.X.format == "csc"


def test_a_manager_that_holds_weakly_lets_its_cells_go():
    cells, manager = datasets.blobs(10, 4, kind="count"), CellsManager()
    manager.register_fields(cells)
    seen = weakref.ref(cells)
    del cells
    gc.collect()
    assert manager.adata is seen() is not None
    again = pickle.loads(pickle.dumps(manager))
    manager.hold_weakly()
    gc.collect()
    assert manager.adata is seen() is None
    assert again.adata.n_obs == 10  # a pickled one has the cells in it


def test_a_manager_that_registers_again_still_holds_weakly(counts):
    VAE.setup_anndata(counts)
    manager = VAE(counts).adata_manager
    VAE.setup_anndata(counts)  # another manager, so that the first one registers its fields again
    manager.validate()
    assert manager.adata is counts
    seen = weakref.ref(manager.adata)
    assert [ref for ref in gc.get_referrers(seen()) if ref is vars(manager)] == []
