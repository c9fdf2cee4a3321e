"""What Lightning has no public way for. That it works is tested in train/test_checkpoint.py."""

from lightning.pytorch import Callback

from mixvi._upstream import restart_epoch
from tests.model.helpers import fitted


def test_counts_of_the_epoch_before_are_where_they_were_seen(counts):
    seen = []

    class Look(Callback):
        def on_save_checkpoint(self, trainer, plan, checkpoint):
            before = dict(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"])
            restart_epoch(checkpoint)
            seen.append((before, checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]))

    fitted("VAE", counts, train={"callbacks": [Look()], "max_epochs": 2})
    assert len(seen) == 2  # a copy at the start of each epoch
    for before, after in seen:
        assert {"current", "total", "is_last_batch"} <= set(before)
        assert set(after["current"].values()) == {0}
        assert after["total"] == before["total"]
        assert not after["is_last_batch"]
