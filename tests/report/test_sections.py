"""The sections of a report say what the model found."""

from mixvi import datasets
from mixvi.report._sections import page
from tests.model.helpers import fitted


def test_another_level_has_its_own_page():
    cells = datasets.blobs(200, 30, n_clusters=4, n_conditions=2, kind="count")
    model = fitted("GMVAE", cells, train={"max_epochs": 40}, n_clusters=4)
    text = page(model, None, 2)
    assert "<b>2</b><span>clusters</span>" in text
    assert "Batches</h2>" not in text
    assert "may hold several types" in text  # four populations in two clusters
    assert "Training took 40 epochs" in text
    assert "n_clusters" in text
