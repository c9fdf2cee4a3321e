"""How long a model is trained, on how many cells, and what users of scvi-tools' trainer expect of it."""

import pickle

import numpy as np
import pytest
import torch

from mixvi import datasets
from mixvi.model._arguments import device_of
from tests.model.helpers import MODELS, build, fitted

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, "10"])
def test_training_takes_an_epoch_at_least(max_epochs, counts):
    with pytest.raises(ValueError, match=f"max_epochs={max_epochs!r}; it must be a whole number of at least 1"):
        build("VAE", counts).train(max_epochs)


@pytest.mark.parametrize("name", MODELS)
def test_a_handful_of_cells_trains_without_validation(name, counts):
    model = fitted(name, counts[:5].copy(), n_clusters=2) if name == "GMVAE" else fitted(name, counts[:5].copy())
    assert model.get_latent_representation().shape == (5, 3)


def trained(counts, n_epochs=4, **options):
    model = build("VAE", counts, n_layers=options.pop("n_layers", 1))
    model.train(n_epochs, **QUIET | options)
    return model


def test_steps_are_counted_in_minibatches(counts):
    assert trained(counts, batch_size=20, train_size=1.0).trainer.global_step == 4 * 6
    assert trained(counts, batch_size=20, train_size=1.0, max_steps=8).trainer.global_step == 8
    assert trained(counts, 2, batch_size=1, train_size=1.0, n_layers=0).trainer.global_step == 2 * 120
    kl_weight = trained(counts, plan_kwargs={"n_epochs_kl_warmup": 2}).history["kl_weight"]
    assert kl_weight["kl_weight"].tolist() == [0, 0.5, 1, 1]


def test_stopping_early_waits_for_min_epochs(counts):
    options = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 1e3, "min_epochs": 8}
    model = trained(counts, 20, batch_size=20, train_size=0.9, **options)
    assert model.trainer.global_step == 6 * len(model.history["elbo_train"])


def test_checkpoints_are_written(counts, tmp_path):
    assert trained(counts, enable_checkpointing=True, default_root_dir=str(tmp_path)).is_trained_


def test_one_cell_left_over_is_left_for_the_next_epoch():
    assert trained(datasets.blobs(129, 20, kind="count"), 1, train_size=1.0).trainer.global_step == 1


@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 0.5}, {"fast_dev_run": True}, {"accumulate_grad_batches": 2}]
)
def test_what_would_count_blocks_is_refused(counts, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        trained(counts, **options)
    with pytest.raises(ValueError, match="early_stopping needs cells"):
        trained(counts, early_stopping=True, train_size=1.0)


def test_a_linear_fit_beyond_single_precision_says_so():
    cells = datasets.blobs(100, 8, kind="real", seed=0)
    cells.X = cells.X * np.float32(1e-21)
    with pytest.raises(ValueError, match="too large or small for single precision. Scale the values"):
        build("VAE", cells, linear=True).train(enable_progress_bar=False)


def test_a_linear_fit_refuses_checkpoints_and_can_be_saved_in_between(tmp_path):
    cells = datasets.blobs(100, 8, kind="real", seed=0)
    model = build("VAE", cells, linear=True)
    for minutes in (0, 5):
        with pytest.raises(ValueError, match=f"checkpoint_minutes={minutes}, but this linear .*leaves no checkpoints"):
            model.train(**QUIET, checkpoint_minutes=minutes)
    assert not model.is_trained_
    build("VAE", cells, linear=True).train(2, **QUIET, checkpoint_minutes=5, batch_size=50)
    whole = build("VAE", cells, linear=True)
    whole.train(**QUIET)
    for _ in range(20):  # what the message proposes
        model.train(5, **QUIET)
        model.save(tmp_path / "model", overwrite=True)
        model = type(model).load(tmp_path / "model", cells, accelerator="cpu")
    np.testing.assert_allclose(model.get_elbo(), whole.get_elbo(), rtol=1e-5)


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_to_three_cells_can_be_trained_on(counts, name, n):
    for batch_size in (None, 1):
        model = build(name, counts[:n].copy(), **({"n_clusters": 1} if name == "GMVAE" else {}))
        before = model.module.encoder.trunk.layers[0].weight.detach().clone()
        model.train(2, **QUIET, batch_size=batch_size)
        assert len(model.train_indices_) == n
        assert not torch.equal(model.module.encoder.trunk.layers[0].weight, before)
        model.annotate()
        assert np.isfinite(model.get_latent_representation()).all()
        assert np.isfinite(model.sample(3).X).all()


@pytest.mark.parametrize("n_left", [1, 2])
def test_cells_that_do_not_fill_a_minibatch_are_trained_on(counts, n_left):
    """scvi-tools gives them to the validation cells, as its batch norm cannot take them."""
    model = build("VAE", counts)
    model.train(1, **QUIET, batch_size=(108 - n_left) // 2, train_size=None)
    assert (counts.n_obs, len(model.train_indices_)) == (120, 108)


def test_a_trained_model_can_be_pickled(counts):
    for name in ("AE", "VAE", "CVAE", "GMVAE"):
        model = build(name, counts)
        model.train(2, **QUIET)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
        again.train(1, **QUIET)


@pytest.mark.parametrize(
    ("has_gpu", "accelerator", "devices", "wanted"),
    [
        (False, "auto", "auto", "cpu"), (False, "mps", 1, "cpu"), (True, "cpu", [3], "cpu"), (True, "mps", 1, "cpu"),
        (True, "auto", "auto", "cuda:0"), (True, "gpu", 1, "cuda:0"), (True, "cuda", [3], "cuda:3"),
    ],
)  # fmt: skip
def test_a_full_batch_is_fitted_where_the_trainer_would(has_gpu, accelerator, devices, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert str(device_of(accelerator, devices)) == wanted
    if not has_gpu:
        with pytest.raises(ValueError, match="there is no CUDA device; take 'auto' or 'cpu'"):
            device_of("gpu", 1)
    with pytest.raises(ValueError, match="accelerator='tpu' is not known"):
        device_of("tpu", 1)
