"""Training that ends in weights that are no numbers says so, and keeps the last good ones."""

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch import Callback

from tests.model.helpers import build

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_a_learning_rate_that_is_too_high_is_an_error(counts, name):
    scvi.settings.seed = 0
    model = build(name, counts)
    with pytest.raises(ValueError, match=r"stopped in epoch 0: .* not finite.*'lr': 1e\+30.*largest is \d+ in cell '"):
        model.train(6, plan_kwargs={"lr": 1e30}, **QUIET)
    assert all(value.isfinite().all() for value in model.module.state_dict().values())
    with pytest.raises(RuntimeError, match="is not trained yet"):  # nothing was learned
        model.get_latent_representation()
    model.train(4, **QUIET)
    assert np.isfinite(model.get_latent_representation()).all()


class Spoil(Callback):
    """Makes a weight of the decoder NaN when an epoch starts."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                next(plan.module.likelihood.parameters()).view(-1)[0] = torch.nan


@pytest.mark.parametrize("epoch", [3, 5, 6, 8])  # components are placed in epoch 5
def test_a_mixture_that_is_taken_back_can_be_trained_on(counts, epoch):
    model = build("GMVAE", counts)
    with pytest.raises(ValueError, match=f"Training stopped in epoch {epoch}"):
        model.train(10, callbacks=[Spoil(epoch)], **QUIET)
    assert (model.clusters_ is not None) == bool(model.module.prior.placed)
    assert np.isfinite(model.get_latent_representation()).all()
    model.predict()
    model.train(10, **QUIET)
    assert bool(model.module.prior.placed)
    assert len(set(model.predict())) > 1


def test_weights_are_restored_where_training_must_go_on(counts):
    model = build("VAE", counts)
    with pytest.raises(ValueError, match="Training stopped in epoch 2"):
        model.train(6, min_epochs=5, callbacks=[Spoil(2)], **QUIET)
    assert all(value.isfinite().all() for value in model.module.state_dict().values())


def test_what_was_learned_before_is_kept(counts):
    model = build("VAE", counts)
    model.train(5, **QUIET)
    z = model.get_latent_representation()
    with pytest.raises(ValueError, match="Training stopped in epoch"):
        model.train(3, plan_kwargs={"lr": 1e30}, **QUIET)
    np.testing.assert_array_equal(model.get_latent_representation(), z)
    model.train(2, **QUIET)
    assert np.isfinite(model.get_elbo())


def test_validation_cells_with_an_infinite_loss_end_training(counts):
    x = counts.X = counts.X.astype(np.float64)
    x[3, 4] = 1e20
    model = build("VAE", counts, likelihood="normal")
    split = [np.arange(8, counts.n_obs), np.arange(8), np.array([], int)]
    with pytest.raises(ValueError, match=r"epoch 0: .*'reconstruction_loss' of the validation cells .*'cell 3'"):
        model.train(5, datasplitter_kwargs={"external_indexing": split}, **QUIET)


def test_the_term_of_the_loss_is_named(counts):
    model = build("VAE", counts)
    with pytest.raises(ValueError, match="the loss term '[a-z_]+' of the training cells is not finite"):
        model.train(4, callbacks=[Spoil(1)], **QUIET)
