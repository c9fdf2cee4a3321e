"""The paragraph says what was done, and nothing else."""

from mixvi import datasets
from mixvi.report._methods import is_calibrated, methods, references
from tests.model.helpers import fitted


def test_it_follows_the_model():
    cells = datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count")
    inferred = fitted("GMVAE", cells, n_clusters=None)
    text = methods(inferred, inferred.n_clusters)
    assert "120 cells and 30 genes" in text
    assert "negative binomial likelihood" in text
    assert "3 latent dimensions" in text
    assert "trained for 4 epochs" in text
    assert "until any two differed significantly" in text
    assert "conditioned on" not in text
    asked = fitted("GMVAE", cells, {"batch_key": "condition"}, n_clusters=3)
    text = methods(asked, 3)
    assert "conditioned on batch (condition)" in text
    assert "differed significantly" not in methods(asked, 2)  # another level than the model's
    given = fitted("GMVAE", cells, n_clusters=None, init="cluster")
    assert "Leiden" not in methods(given, given.n_clusters)
    assert not any("Leiden" in paper for paper in references(given))
    real = fitted("GMVAE", datasets.blobs(120, 10, n_clusters=3))
    assert not is_calibrated(real)
    assert "calibrated" not in methods(real, 3)
    assert not any("count splitting" in paper or "calibration" in paper for paper in references(real))
