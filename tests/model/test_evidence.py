"""Evidence through the front door; its values stand in test_exactness."""

import numpy as np
import pytest
import scvi

from mixvi import datasets

from .helpers import build, fitted


@pytest.fixture
def reals():
    return datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="real")


@pytest.mark.parametrize("name", ["VAE", "CVAE", "GMVAE"])
def test_bound_rises_from_the_elbo_to_the_evidence(reals, name):
    model = fitted(name, reals, n_layers=0, likelihood="normal", train={"max_epochs": 30, "batch_size": 32})
    exact = model.exact_log_evidence()
    assert exact.shape == (120,)
    scvi.settings.seed = 1
    found = model.get_log_evidence(n_samples=2000)
    assert (found.standard_error > 0).all()
    assert np.median(np.abs(found.value - exact)) < 0.5
    assert model.get_elbo() < found.value.mean() < exact.mean() + 5 * found.standard_error.mean()
    few = model.get_log_evidence(n_samples=2)
    assert few.value.mean() < found.value.mean()


@pytest.mark.parametrize("name", ["VAE", "CVAE", "GMVAE"])
def test_more_samples_in_training_give_a_tighter_bound(counts, name):
    model = fitted(name, counts, train={"n_importance_samples": 5})
    assert np.isfinite(model.history["elbo_train"].to_numpy(dtype=float)).all()
    found = model.get_log_evidence(indices=[3, 1], n_samples=10)
    assert found.value.shape == (2,)


def test_rows_come_in_the_order_asked_for(counts):
    model = fitted("VAE", counts, n_layers=0, likelihood="normal")
    all_cells = model.exact_log_evidence()
    np.testing.assert_allclose(model.exact_log_evidence(indices=[5, 2, 2]), all_cells[[5, 2, 2]], rtol=1e-6)


def test_samples_drawn_in_chunks_count_alike(counts, monkeypatch):
    from mixvi.model import _evidence

    model = fitted("VAE", counts)
    monkeypatch.setattr(_evidence, "VALUES_AT_ONCE", 1)
    found = model.get_log_evidence(indices=[0], n_samples=7)
    scvi.settings.seed = 0
    log_w = []
    for _ in range(7):
        log_w.append(model.get_log_evidence(indices=[0], n_samples=1).value[0])
    assert found.value[0] == pytest.approx(np.mean(log_w), abs=5 * np.std(log_w))


def test_what_has_no_evidence_says_so(counts):
    model = fitted("VAE", counts)
    with pytest.raises(ValueError, match="get_log_evidence"):
        model.exact_log_evidence()
    for n_samples in (0, 2.5, None):
        with pytest.raises(ValueError, match=f"n_samples={n_samples}; it must be a whole number"):
            model.get_log_evidence(n_samples=n_samples)
        with pytest.raises(ValueError, match=f"n_importance_samples={n_samples}; it must be a whole number"):
            model.train(1, n_importance_samples=n_samples)
    counts.X = np.log1p(counts.X)
    hierarchical = fitted("GMVAE", counts, n_layers=0, likelihood="normal", hierarchical=True)
    with pytest.raises(ValueError, match="hierarchical"):
        hierarchical.exact_log_evidence()
    assert not hasattr(build("AE", counts), "get_log_evidence")
    with pytest.raises(ValueError, match="mixvi.VAE"):
        fitted("AE", counts, train={"n_importance_samples": 3})


def test_marginal_ll_is_the_evidence_under_another_name(counts):
    model = fitted("VAE", counts)
    scvi.settings.seed = 1
    value = model.get_log_evidence(n_samples=50).value
    scvi.settings.seed = 1
    np.testing.assert_array_equal(model.get_marginal_ll(n_mc_samples=50, return_mean=False), value)
    assert model.get_marginal_ll(n_mc_samples=50).ndim == 0
    assert model.get_marginal_ll(n_mc_samples=50) == pytest.approx(value.mean(), rel=1e-2)


def test_draws_per_pass_change_nothing(counts):
    model = fitted("VAE", counts)
    found = []
    for per_pass in (None, 2, 100):
        scvi.settings.seed = 1
        found.append(model.get_marginal_ll(n_mc_samples=6, n_mc_samples_per_pass=per_pass, return_mean=False))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    with pytest.raises(ValueError, match="n_mc_samples_per_pass=0; it must be"):
        model.get_marginal_ll(n_mc_samples_per_pass=0)
