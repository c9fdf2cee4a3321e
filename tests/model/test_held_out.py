"""The split of the counts that training used."""

import numpy as np
import pytest

from mixvi import GMVAE
from mixvi.model._held_out import held_out_counts


def test_both_parts_are_the_registered_counts(model, blobs):
    found = held_out_counts(model, "a test")
    whole = np.asarray(blobs.X)[model.clusters_["rows"]]
    np.testing.assert_array_equal(found.counts.toarray(), whole)
    np.testing.assert_array_equal((found.halves.seen + found.halves.held_out).toarray(), whole)
    again = held_out_counts(model, "a test")
    assert (again.halves.seen != found.halves.seen).nnz == 0  # the same split each time


def test_without_cells_there_are_no_counts(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="data|cells"):
        held_out_counts(GMVAE.load(tmp_path / "model", adata=False), "a test")
