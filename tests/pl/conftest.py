"""A mixture whose clusters can be drawn, and no figures but those of a test itself."""

import matplotlib.pyplot as plt
import pytest

from tests.model.helpers import fitted


@pytest.fixture(autouse=True)
def _figures():
    plt.close("all")  # those of other tests
    yield
    plt.close("all")


@pytest.fixture
def model(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 60})
    model.annotate()
    return model
