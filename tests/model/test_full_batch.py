"""Which trainings take all cells at once."""

import pytest

from mixvi import datasets
from mixvi.model import _full_batch
from mixvi.model._full_batch import fits_in_full_batch
from tests.model.helpers import build


@pytest.mark.parametrize(
    ("settings", "plan", "trainer", "fits"),
    [
        ({"linear": True}, {}, {}, True),
        ({"linear": True}, {"max_kl_weight": 0.5, "weight_decay": 0.1}, {"enable_progress_bar": False}, True),
        ({"linear": True}, {"lr": 0.1}, {}, False),
        ({"linear": True}, {}, {"max_steps": 3}, False),
        ({"n_layers": 1}, {}, {}, False),
    ],
)
def test_linear_gaussian_models_with_plain_settings_do(settings, plan, trainer, fits, monkeypatch):
    model = build("VAE", datasets.blobs(60, 12), **settings)
    assert fits_in_full_batch(model, plan, trainer) == fits
    monkeypatch.setattr(_full_batch, "MAX_FULL_BATCH", 60 * 12 - 1)
    assert not fits_in_full_batch(model, plan, trainer)
