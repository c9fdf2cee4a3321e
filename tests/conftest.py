"""Fixtures, and the two markers: `gpu` needs a CUDA device, `data` the files of a folder named in MIXVI_DATA_DIR."""

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch
from sklearn.datasets import make_blobs

from mixvi import datasets
from mixvi._warnings import MixviWarning
from mixvi.cluster import shared_neighbors

os.environ.setdefault("MPLBACKEND", "Agg")
DATA_DIR = Path(os.environ.get("MIXVI_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items):
    """Skip, with the reason, what this machine cannot run."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("data") and not DATA_DIR.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs real data: name their folder in MIXVI_DATA_DIR"))


@pytest.fixture(autouse=True, scope="session")
def _signals():
    """Under ``nohup ... &`` a process ignores SIGINT; the tests of interruption need its default."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded(caplog):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    caplog.set_level("INFO", "mixvi")
    scvi.settings.seed = 0


@pytest.fixture
def warned(recwarn):
    """All that mixvi has warned of so far, as one text."""
    return lambda: " ".join(str(warning.message) for warning in recwarn if warning.category is MixviWarning)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def counts():
    """120 cells x 30 genes of counts in three clusters and two conditions."""
    return datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count")


@pytest.fixture(autouse=True)
def _real_data(request, monkeypatch):
    """Names the folder of real data to the loaders, where a test asks for it by its marker."""
    if request.node.get_closest_marker("data"):
        monkeypatch.setenv("MIXVI_DATA_DIR", str(DATA_DIR))


@pytest.fixture
def four_blobs():
    """The neighbour graph (300, 300) of four blobs that lie apart, and the blob of each cell."""
    x, y = make_blobs(300, 5, centers=4, cluster_std=0.8, random_state=1)
    return shared_neighbors(x), y
