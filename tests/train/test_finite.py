"""Training that ends in weights that are no numbers says so, and keeps the last good ones."""

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch import Callback

import mixvi
from mixvi import datasets
from tests.model.helpers import build

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_a_learning_rate_that_is_too_high_is_an_error(counts, name):
    scvi.settings.seed = 0
    model = build(name, counts)
    with pytest.raises(ValueError, match=r"stopped in epoch 1: .* not finite.*'lr': 1e\+30.*largest is \d+ in cell '"):
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


def test_a_linear_fit_beyond_single_precision_says_so():
    cells = datasets.blobs(100, 8, kind="real", seed=0)
    cells.X = cells.X * np.float32(1e-21)
    with pytest.raises(ValueError, match="too large or small for single precision. Scale the values"):
        build("VAE", cells, linear=True).train(enable_progress_bar=False)


def test_what_was_learned_before_is_kept(counts):
    model = build("VAE", counts)
    model.train(5, **QUIET)
    z = model.get_latent_representation()
    with pytest.raises(ValueError, match="Training stopped in epoch"):
        model.train(3, plan_kwargs={"lr": 1e30}, **QUIET)
    np.testing.assert_array_equal(model.get_latent_representation(), z)
    model.train(2, **QUIET)
    assert np.isfinite(model.get_elbo())


def test_values_beyond_single_precision_are_refused(counts):
    counts.X = np.asarray(counts.X, dtype=np.float64)
    counts.X[3, 2] = 1e39
    mixvi.VAE.setup_anndata(counts)
    with pytest.raises(ValueError, match="NaN, infinite or too large entries: 1 .*1e\\+39 in cell"):
        mixvi.VAE(counts)


def test_size_factors_beyond_single_precision_are_refused(counts):
    counts.obs["size"] = np.where(np.arange(counts.n_obs) == 3, 1e300, 1.0)
    with pytest.raises(ValueError, match=r"obs\['size'\] has NaN, infinite or too large values in 1 of"):
        mixvi.VAE.setup_anndata(counts, size_factor_key="size")


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_cells_cannot_be_trained_on(counts, n):
    with pytest.raises(ValueError, match=f"There are {n} cells, and training needs at least three"):
        build("VAE", counts[:n].copy()).train(2, **QUIET)


def test_three_cells_can_be_trained_on(counts):
    for name in ("AE", "VAE", "CVAE", "GMVAE"):
        model = build(name, counts[:3].copy(), n_clusters=1) if name == "GMVAE" else build(name, counts[:3].copy())
        model.train(2, **QUIET)
        assert np.isfinite(model.get_latent_representation()).all()


def test_a_trained_model_can_be_pickled(counts):
    import pickle

    for name in ("AE", "VAE", "CVAE", "GMVAE"):
        model = build(name, counts)
        model.train(2, **QUIET)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
        again.train(1, **QUIET)
