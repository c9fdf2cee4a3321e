"""What Lightning and scvi-tools have no public way for. New epochs are tested in train/test_checkpoint.py."""

from lightning.pytorch import Callback
from scvi.model import SCVI

from mixvi._upstream import MINIFY_TYPE, restart_epoch
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


def test_minified_cells_are_marked_as_scvi_tools_marks_them(counts):
    """`scvi.model.SCVI` marks its AnnData with the same key, and says so by its public property."""
    SCVI.setup_anndata(counts)
    model = SCVI(counts, n_hidden=4, n_latent=2)
    model.is_trained_ = True
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
    model.minify_adata()
    assert model.adata.uns[MINIFY_TYPE] == model.minified_data_type == "latent_posterior_parameters"
