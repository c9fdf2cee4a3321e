"""What is registered, as rows."""

import anndata as ad
import numpy as np
from scipy.sparse import csc_matrix

from mixvi import VAE
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
