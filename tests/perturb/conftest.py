"""Cells whose answer to a treatment is known."""

import pytest

from mixvi import datasets


@pytest.fixture
def toy():
    """600 cells in three types; the condition adds the same vector to all of them."""
    return datasets.blobs(600, 30, n_clusters=3, n_conditions=2)
