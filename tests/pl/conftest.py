"""A mixture whose clusters can be drawn."""

import matplotlib.pyplot as plt
import pytest

from tests.model.helpers import fitted


@pytest.fixture
def model(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 60})
    model.annotate()
    yield model
    plt.close("all")
