"""Progress as plain lines."""

import pytest
from lightning.pytorch import Callback

from mixvi.train import ProgressLines, StartAndEnd
from tests.model.helpers import fitted


@pytest.mark.parametrize(("n_epochs", "said"), [(3, [1, 2, 3]), (20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20])])
def test_about_ten_lines_say_epoch_and_loss(counts, n_epochs, said):
    lines = []
    model = fitted("VAE", counts, train={"max_epochs": n_epochs, "callbacks": [ProgressLines(lines.append)]})
    losses = model.history["train_loss"].iloc[:, 0]
    assert lines == [f"Epoch {epoch} of {n_epochs}: loss {float(losses[epoch - 1]):.6g}" for epoch in said]


@pytest.mark.parametrize(
    ("n_epochs", "n_done", "line"),
    [
        (1000, 0, "VAE of x: 1,000 epochs on cuda:0."),
        (None, 0, "VAE of x: no limit of epochs on cuda:0."),
        (9, 4, "VAE of x: 9 epochs on cuda:0, from epoch 4 on."),
    ],
)
def test_start_and_end_are_a_line_each(n_epochs, n_done, line, caplog):
    lines = StartAndEnd("VAE of x")
    lines.start(n_epochs, "cuda:0", n_done)
    lines.started -= 4000
    lines.end(3)
    assert caplog.messages == [line, "VAE trained for 3 epochs in 4,000 s."]


def test_a_training_that_stops_early_says_how_far_it_came(counts, caplog):
    fitted("VAE", counts, train={"max_epochs": 9, "max_steps": 3, "batch_size": 60})
    assert "9 epochs on cpu" in caplog.text
    assert "trained for 2 epochs" in caplog.text


@pytest.mark.parametrize(("hook", "n_epochs"), [("on_train_epoch_start", 2), ("on_train_batch_start", 3)])
def test_an_epoch_counts_if_it_had_a_step(counts, caplog, hook, n_epochs):
    """The number is that of the losses in the history."""

    class Stop(Callback):
        pass

    def stop(self, trainer, *args):
        trainer.should_stop |= trainer.current_epoch == 2

    setattr(Stop, hook, stop)
    model = fitted("VAE", counts, train={"max_epochs": 9, "callbacks": [Stop()]})
    assert len(model.history["elbo_train"]) == n_epochs
    assert f"trained for {n_epochs} epochs" in caplog.text
