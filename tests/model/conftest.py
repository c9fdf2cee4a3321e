"""Cells and models that several files of this folder look at."""

import pytest

from mixvi import datasets
from tests.model.helpers import fitted


@pytest.fixture
def blobs():
    return datasets.blobs(300, 30, n_clusters=3, n_conditions=2, kind="count")


@pytest.fixture
def model(blobs):
    return fitted("GMVAE", blobs, train={"max_epochs": 120})


@pytest.fixture
def toy():
    return datasets.blobs(600, 30, n_clusters=3, n_conditions=2)
