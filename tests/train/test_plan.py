"""Warm-up, phases and early stopping."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from scipy.sparse import csr_matrix

from mixvi import datasets
from tests.model.helpers import QUICK, build, fitted

TERMS = {"AE": [], "VAE": ["kl_z"], "CVAE": ["kl_z"], "GMVAE": ["kl_z", "kl_y"]}


@pytest.mark.parametrize("name", TERMS)
def test_history_has_every_term_by_its_name(name, counts):
    model = fitted(name, counts)
    for term in ["elbo", "reconstruction_loss", *TERMS[name]]:
        for split in ("train", "validation"):
            values = model.history[f"{term}_{split}"].astype(float)
            assert len(values) == 4
            assert np.isfinite(values).to_numpy().all()
    kl = sum(model.history[f"{term}_validation"].to_numpy(dtype=float) for term in TERMS[name])
    elbo, error = (model.history[f"{k}_validation"].to_numpy(dtype=float) for k in ("elbo", "reconstruction_loss"))
    np.testing.assert_allclose(elbo, error + kl, rtol=1e-5)


@pytest.mark.parametrize("max_epochs", [2, 10, 25])
def test_warm_up_ends_within_the_run(max_epochs, counts):
    weight = fitted("VAE", counts, train={"max_epochs": max_epochs}).history["kl_weight"].to_numpy(dtype=float).ravel()
    assert weight[0] == 0
    assert weight[-1] == 1


def test_warm_up_is_the_users_to_set(counts):
    plan = {"n_epochs_kl_warmup": None}
    weight = fitted("VAE", counts, train={"plan_kwargs": plan}).history["kl_weight"].to_numpy(dtype=float)
    assert (weight == 1).all()
    plan = {"n_steps_kl_warmup": 1000, "max_kl_weight": 0.5}
    weight = fitted("VAE", counts, train={"plan_kwargs": plan}).history["kl_weight"].to_numpy(dtype=float)
    assert weight.max() < 0.01
    assert plan == {"n_steps_kl_warmup": 1000, "max_kl_weight": 0.5}  # the user's dict stays as it was
    train = {"max_epochs": 1, "batch_size": 12, "plan_kwargs": {"n_steps_kl_warmup": 10}}
    weight = fitted("VAE", counts, train=train).history["kl_weight"].to_numpy(dtype=float)
    assert weight == pytest.approx(0.8)  # of the last of nine steps on 108 cells, before which there were eight


@pytest.mark.parametrize(("name", "settled"), [("VAE", 4), ("GMVAE", 10)])
def test_early_stopping_waits_for_warm_up_and_placing(name, settled, counts):
    stop = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 1e9}
    train = {"max_epochs": 2 * settled}  # of which a mixture pretrains half
    if name == "VAE":
        train["plan_kwargs"] = {"n_epochs_kl_warmup": settled}
    model = fitted(name, counts, train=train | stop)
    assert settled < len(model.history["elbo_train"]) <= settled + 3


def test_a_mixture_is_a_vae_until_its_components_are_placed(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 10, "plan_kwargs": {"n_epochs_pretrain": 6}})
    kl_y = model.history["kl_y_train"].to_numpy(dtype=float).ravel()
    assert np.abs(kl_y[:6]).max() < 1e-6
    assert kl_y[6:].min() > 0.01
    assert all(parameter.requires_grad for parameter in model.module.prior.parameters())


def test_components_learn_after_they_are_placed(counts):
    """At a learning rate of almost nothing, they stay where they were placed before the first step."""
    placed, learned = (
        fitted("GMVAE", counts, train={"plan_kwargs": {"n_epochs_pretrain": 0} | rate}).module.prior.loc.detach()
        for rate in ({"lr": 1e-12}, {})
    )
    k = 3
    assert torch.pdist(placed[:k]).min() > 1e-3
    assert ((learned - placed)[:k].abs() > 1e-4).any(-1).all()


def test_training_further_keeps_the_components(counts):
    model = fitted("GMVAE", counts)
    before = model.module.prior.loc.detach().clone()
    model.train(**QUICK, plan_kwargs={"lr": 1e-12})
    torch.testing.assert_close(model.module.prior.loc.detach(), before, rtol=0, atol=1e-6)
    assert len(model.history["elbo_train"]) == 8
    assert model.history["kl_weight"].to_numpy(dtype=float)[-1] == 1


def test_small_parts_do_not_collapse(counts):
    model = fitted("GMVAE", counts[:12].copy(), train={"max_epochs": 6, "train_size": 1.0}, n_clusters=4)
    assert torch.isfinite(model.module.prior.log_scale).all()
    assert np.isfinite(model.get_elbo())


def test_a_run_that_broke_off_can_be_taken_up(counts):
    model = build("GMVAE", counts)
    model.train(**(QUICK | {"max_steps": 1}))  # ends before the components are placed
    assert not model.module.prior.placed
    model.train(**QUICK)
    assert model.module.prior.placed
    assert model.n_clusters == 3

    class Break(Callback):
        def on_train_epoch_end(self, *args):
            raise RuntimeError("pulled the plug")

    model = build("GMVAE", counts)
    with pytest.raises(RuntimeError, match="plug"):
        model.train(**(QUICK | {"callbacks": [Break()]}))
    model.train(**QUICK)
    assert all(parameter.requires_grad for parameter in model.module.prior.parameters())
    weights = model.module.prior.log_weights().exp().detach().numpy()
    assert np.abs(weights * 108 - np.round(weights * 108)).max() > 1e-4  # learned: no longer shares of 108 cells


def test_a_model_trains_on_its_own_registration(counts):
    counts.obs["other"] = [f"level {i % 4}" for i in range(counts.n_obs)]
    model = build("CVAE", counts)
    build("CVAE", counts, {"batch_key": "other"})
    model.train(**QUICK)
    assert model.module.layout.batch_levels == 2


def test_plan_config_counts_as_well(counts):
    config = {"n_epochs_kl_warmup": 100}
    model = fitted("VAE", counts, train={"plan_config": config})
    assert model.history["kl_weight"].to_numpy(dtype=float).max() < 0.1


def test_sparse_loading(counts):
    counts.X = csr_matrix(counts.X)
    assert np.isfinite(fitted("GMVAE", counts, train={"load_sparse_tensor": True}).get_elbo())


def test_an_optimizer_that_asks_again_is_refused(counts):
    plan = {"optimizer": "Custom", "optimizer_creator": torch.optim.LBFGS}
    with pytest.raises(ValueError, match="L-BFGS cannot train in minibatches"):
        fitted("VAE", counts, train={"plan_kwargs": plan})


def test_steps_can_be_logged_too(counts):
    history = fitted("VAE", counts, train={"plan_kwargs": {"on_step": True}}).history
    assert {"train_loss_step", "train_loss_epoch", "kl_z_train_epoch"} <= set(history)
    assert all(np.isfinite(values.to_numpy(dtype=float)).all() for values in history.values())


@pytest.mark.parametrize("name", ["AE", "VAE", "GMVAE"])
def test_a_fit_does_not_depend_on_the_unit_of_real_values(name):
    def latents(scale, shift):
        adata = datasets.blobs(120, 30, n_clusters=3, kind="real")
        adata.X = adata.X * np.float32(scale) + np.float32(shift)
        return fitted(name, adata, likelihood="normal").get_latent_representation()

    expected = latents(1, 0)
    for scale, shift in ((256, 0), (2**-10, 0), (1, 32)):
        np.testing.assert_allclose(latents(scale, shift), expected, atol=0.02 * expected.std())


@pytest.mark.parametrize(("name", "settings"), [("AE", {"linear": True}), ("VAE", {"linear": True}), ("GMVAE", {})])
def test_a_linear_fit_in_minibatches_does_not_depend_on_the_unit(name, settings):
    x = datasets.blobs(120, 20, n_clusters=3, kind="real").X

    def found(scale, shift):
        adata = AnnData(x * np.float32(scale) + np.float32(shift))
        settings_all = {"likelihood": "normal", "n_latent": 4, "n_layers": 0} | settings
        train = {"max_epochs": 15, "batch_size": 32, "plan_kwargs": {"lr": 0.02}}
        model = fitted(name, adata, train=train, **settings_all)
        rebuilt = (model.get_reconstruction() - shift) / scale
        r2 = 1 - np.square(rebuilt - x).sum() / np.square(x - x.mean(0)).sum()
        return r2, model.module.likelihood.loadings.detach().numpy() / scale, model.get_elbo()

    r2, loadings, elbo = found(1, 0)
    assert r2 > 0.1
    for scale, shift in ((0.01, 0), (1e4, 0), (1, 1000)):
        r2_now, loadings_now, elbo_now = found(scale, shift)
        assert r2_now == pytest.approx(r2, abs=0.02)
        np.testing.assert_allclose(loadings_now, loadings, atol=0.05 * np.abs(loadings).max())
        assert elbo_now + x.shape[1] * np.log(scale) == pytest.approx(elbo, abs=0.5)


def test_a_fit_after_one_that_failed_has_the_right_unit():
    adata = datasets.blobs(120, 30, n_clusters=3, kind="real")
    adata.X = adata.X * 1000
    model = build("VAE", adata, likelihood="normal")
    with pytest.raises(ValueError, match="not finite"):
        model.train(**QUICK, plan_kwargs={"lr": 1e30})
    model.train(**QUICK | {"max_epochs": 30})
    assert model.module.likelihood.unit.item() == pytest.approx(adata.X.std(0).mean(), rel=0.2)
    fresh = fitted("VAE", adata, likelihood="normal", train={"max_epochs": 30})
    assert model.get_elbo() == pytest.approx(fresh.get_elbo(), rel=0.05)


def test_a_fit_does_not_depend_on_the_unit_of_size_factors(counts):
    def error(unit):
        adata = counts.copy()
        adata.obs["factor"] = np.asarray(adata.X.sum(1)).ravel() * unit
        model = fitted("VAE", adata, setup={"size_factor_key": "factor"})
        return model.history["elbo_train"].to_numpy(dtype=float)

    np.testing.assert_allclose(error(2.0**-13), error(1), rtol=1e-4)
