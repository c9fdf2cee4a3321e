"""Clusters that other seeds find again, and those that dissolve."""

import pytest

import mixvi
from mixvi import datasets
from tests.model.helpers import fitted


def test_clusters_that_are_there_are_stable():
    train = {"max_epochs": 120}
    model = fitted("GMVAE", datasets.blobs(300, 30, n_clusters=3, kind="count"), train=train)
    found = model.cluster_stability(2, accelerator="cpu")
    assert list(found.index) == model.cluster_names
    assert found["cells"].sum() == 300
    assert found["mean"].min() > 0.9
    for wrong in (0, "2"):
        with pytest.raises(ValueError, match=f"n_seeds={wrong!r}; it must be a whole number of at least 1"):
            model.cluster_stability(wrong)
    forced = fitted("GMVAE", model.adata, train={"max_epochs": 20}, n_clusters=12)
    assert forced.cluster_stability(2, accelerator="cpu")["mean"].min() < 0.5  # blobs in pieces


def test_stability_refuses_another_registration(model, blobs):
    mixvi.GMVAE.setup_anndata(blobs, batch_key="condition")
    with pytest.raises(ValueError, match="registered again"):
        model.cluster_stability(1)
