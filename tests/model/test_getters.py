"""What a trained model says of cells, and the cells that it draws."""

import anndata as ad
import numpy as np
import pytest
import scvi

from tests.model.helpers import MODELS, fitted


def test_posterior_mean_draws_and_variance(counts):
    model = fitted("VAE", counts)
    mean, variance = model.get_latent_representation(return_dist=True)
    np.testing.assert_array_equal(mean, model.get_latent_representation())
    assert (variance > 0).all()
    drawn = np.stack([model.get_latent_representation(give_mean=False) for _ in range(300)])
    error = np.sqrt(variance / 300)
    assert (np.abs(drawn.mean(0) - mean) < 5.5 * error).all()
    mean, variance = fitted("AE", counts).get_latent_representation(return_dist=True)
    assert (variance == 0).all()


def test_elbo_is_error_plus_kl(counts):
    model = fitted("VAE", counts, train={"plan_kwargs": {"n_epochs_kl_warmup": None}})
    mean, variance = (a.astype(float) for a in model.get_latent_representation(return_dist=True))
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
    scvi.settings.seed = 3
    elbo = model.get_elbo(return_mean=False)
    scvi.settings.seed = 3
    error = model.get_reconstruction_error(return_mean=False)["reconstruction_loss"]
    np.testing.assert_allclose(elbo, -error - kl, rtol=1e-4)
    assert model.get_elbo() == pytest.approx(elbo.mean(), rel=0.01)
    assert model.get_elbo().ndim == model.get_reconstruction_error()["reconstruction_loss"].ndim == 0


def test_reconstruction_to_disk(counts, tmp_path):
    model, rows = fitted("VAE", counts), [5, 3, 40]
    assert model.get_reconstruction(path=tmp_path / "all.h5ad") is None
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "all.h5ad").X, model.get_reconstruction())
    counts.obs["mine"] = "B"
    model.get_reconstruction(counts.copy(), indices=rows, library_size=1e4, path=tmp_path / "some.zarr")
    some = ad.read_zarr(tmp_path / "some.zarr")
    np.testing.assert_array_equal(some.X, model.get_reconstruction(indices=rows, library_size=1e4))
    assert list(some.obs_names) == list(counts.obs_names[rows])
    assert (some.obs["mine"] == "B").all()
    assert not any(column.startswith("_scvi") for column in some.obs)
    with pytest.raises(ValueError, match="exists"):
        model.get_reconstruction(path=tmp_path / "all.h5ad")


def test_reconstruction_has_the_library_asked_for(counts):
    model = fitted("VAE", counts)
    np.testing.assert_allclose(model.get_reconstruction().sum(1), counts.X.sum(1), rtol=1e-4)
    np.testing.assert_allclose(model.get_reconstruction(library_size=1e4).sum(1), 1e4, rtol=1e-4)
    with pytest.raises(ValueError, match="no meaning under likelihood='normal'"):
        fitted("VAE", counts, likelihood="normal").get_reconstruction(library_size=1e4)


@pytest.mark.parametrize("name", MODELS)
def test_new_cells_look_like_the_old_ones(name, counts):
    model = fitted(name, counts, train={"max_epochs": 300, "plan_kwargs": {"lr": 0.01}})
    new = model.sample(2000, seed=0)
    assert new.shape == (2000, 30)
    assert (new.var_names == counts.var_names).all()
    assert (np.round(new.X) == new.X).all()
    assert (new.X >= 0).all()
    assert new.X.sum(1).mean() == pytest.approx(counts.X.sum(1).mean(), rel=0.05)
    likeness = np.corrcoef(np.log1p(new.X.mean(0)), np.log1p(counts.X.mean(0)))[0, 1]
    assert likeness > (
        0.7 if name == "AE" else 0.95
    )  # an AE draws from one normal, which covers what lies between clusters
    np.testing.assert_array_equal(new.X, model.sample(2000, seed=0).X)
    assert (new.X != model.sample(2000, seed=1).X).any()


def test_every_new_cell_is_a_draw_of_its_own(counts):
    model = fitted("VAE", counts)
    assert len(np.unique(model.sample(500, seed=0).X, axis=0)) > 450
    draws = model.get_latent_representation(indices=[0] * 50, give_mean=False)
    assert len(np.unique(draws, axis=0)) == 50


def test_new_cells_take_their_condition_from_the_rows_given(counts):
    model = fitted("CVAE", counts)
    rows = np.flatnonzero(counts.obs["condition"] == "condition 1")
    assert set(model.sample(20, indices=rows).obs["condition"]) == {"condition 1"}
    for name in ("AE", "VAE", "CVAE"):
        with pytest.raises(ValueError, match="use mixvi.GMVAE"):
            fitted(name, counts).sample(3, component="0")
