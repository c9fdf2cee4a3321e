"""Models without clusters say so, and write none."""

import pytest

from tests.model.helpers import fitted


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE"])
def test_clusters_are_asked_of_a_mixture(name, counts):
    model = fitted(name, counts)
    with pytest.raises(ValueError, match=f"{name} has no clusters, and got n_clusters=3; use mixvi.GMVAE"):
        model.annotate(n_clusters=3)
    with pytest.raises(ValueError, match=f"{name} has no components, and got component='0'; use mixvi.GMVAE"):
        model.sample(2, component="0")
    assert set(counts.obsm) == {"z"}
    model.annotate()
    assert set(counts.obsm) == {"z", "X_mixvi"}
    assert not {"n_clusters", "temperature", "tree", "markers"} & set(counts.uns["mixvi"])
