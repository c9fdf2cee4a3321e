"""A GMVAE that starts from a VAE."""

import numpy as np
import pytest

import mixvi
from tests.model.helpers import QUICK, build, fitted


@pytest.mark.parametrize("name", ["VAE", "CVAE"])
def test_it_is_the_same_model_and_trains_on(name, counts):
    settings = {"batch_representation": "embedding"} if name == "CVAE" else {"dropout_rate": 0.0}
    vae = fitted(name, counts, likelihood="zinb", **settings)
    counts.obs["known"] = counts.obs["cluster"].astype(str).where(np.arange(counts.n_obs) % 3 == 0, "?")
    model = mixvi.GMVAE.from_scvi_model(vae, "?", labels_key="known")
    np.testing.assert_allclose(model.get_latent_representation(), vae.get_latent_representation(), rtol=1e-5, atol=1e-6)
    assert model.init_params_["non_kwargs"]["n_hidden"] == 16
    assert set(model.history) >= set(vae.history)
    assert set(model.predict()) == {"0"}
    before = vae.get_elbo()
    model.train(**QUICK | {"max_epochs": 10})
    assert set(counts.obs["cluster"].unique()) <= set(model.cluster_names)
    assert len(model.history["elbo_train"]) == 14
    assert model.get_elbo() > before - 5


def test_what_it_refuses(counts):
    vae = fitted("VAE", counts)
    with pytest.raises(RuntimeError, match="is not trained yet"):
        mixvi.GMVAE.from_scvi_model(build("VAE", counts))
    with pytest.raises(ValueError, match="The genes of the AnnData are not those of the VAE"):
        mixvi.GMVAE.from_scvi_model(vae, adata=counts[:, 1:].copy())
    with pytest.raises(ValueError, match="with a standard normal prior"):
        mixvi.GMVAE.from_scvi_model(fitted("CVAE", counts, learned_prior=True))
    cvae = fitted("CVAE", counts)
    other = counts.copy()
    other.obs["condition"] = other.obs["condition"].astype(str).replace("condition 0", "later")
    with pytest.raises(ValueError, match="and the CVAE knows"):
        mixvi.GMVAE.from_scvi_model(cvae, adata=other)
