"""Progress as plain lines."""

import pytest

from mixvi.train import ProgressLines
from tests.model.helpers import fitted


@pytest.mark.parametrize(("n_epochs", "said"), [(3, [1, 2, 3]), (20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20])])
def test_about_ten_lines_say_epoch_and_loss(counts, n_epochs, said):
    lines = []
    model = fitted("VAE", counts, train={"max_epochs": n_epochs, "callbacks": [ProgressLines(lines.append)]})
    losses = model.history["train_loss"].iloc[:, 0]
    assert lines == [f"Epoch {epoch} of {n_epochs}: loss {float(losses[epoch - 1]):.6g}" for epoch in said]
