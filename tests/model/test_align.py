"""Genes of new cells for a mapped model."""

import numpy as np
import pytest

from mixvi.model._align import align, as_mapped
from tests.model.helpers import fitted


def test_labels_of_aligned_cells_are_unlabelled(blobs):
    model = fitted("GMVAE", blobs, {"labels_key": "cluster"})
    found, unseen = align(model.registry_, blobs[:, 3:].copy(), None)
    assert set(found.obs["cluster"]) == {"unlabeled"}
    assert unseen.sum() == 3
    assert set(blobs.obs["cluster"]) == {"blob 0", "blob 1", "blob 2"}


def test_only_a_mapped_model_aligns(blobs):
    model, query = fitted("VAE", blobs), blobs[:9, 1:].copy()
    assert as_mapped(model, query) is query
    with pytest.raises(ValueError, match="The cells lack 1 of the model's 30 genes"):
        model.get_latent_representation(query)
    query.layers["other"] = query.X
    np.testing.assert_array_equal(as_mapped(model.map(query), query).X[:, 1:], query.X)
