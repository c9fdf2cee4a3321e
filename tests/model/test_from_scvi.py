"""A VAE with the weights of SCVI gives what SCVI gives."""

import numpy as np
import pytest
import scvi
import torch

import mixvi


@pytest.fixture(scope="module", params=["nb gene", "nb gene-batch", "zinb gene", "poisson gene"])
def pair(request):
    scvi.settings.seed = 0
    adata = mixvi.datasets.blobs(200, 40, kind="count")
    scvi.model.SCVI.setup_anndata(adata)
    likelihood, dispersion = request.param.split()
    settings = {"gene_likelihood": likelihood, "dispersion": dispersion}
    theirs = scvi.model.SCVI(adata, n_latent=4, n_hidden=32, n_layers=2, **settings)
    theirs.train(15, accelerator="cpu", enable_progress_bar=False)
    return theirs, mixvi.VAE.from_scvi(theirs, adata.copy())


def test_latents(pair):
    theirs, ours = pair
    np.testing.assert_allclose(
        ours.get_latent_representation(), theirs.get_latent_representation(), rtol=1e-4, atol=1e-5
    )
    variances = [model.get_latent_representation(return_dist=True)[1] for model in pair]
    np.testing.assert_allclose(variances[1], variances[0], rtol=1e-2)  # small constants keep both from 0


def test_expected_shares(pair):
    theirs, ours = pair
    means = [model.get_normalized_expression(n_samples=500, return_numpy=True) for model in pair]
    scatter = theirs.get_normalized_expression(n_samples=500, return_mean=False).std(0) / np.sqrt(500)
    assert (abs(means[0] - means[1]) / (scatter + 1e-9) < 7).all()  # of 8,000 differences of 1.4 standard errors
    cells = ours.module.read({name: torch.tensor(ours.adata.X) for name in ("X",)})
    z = torch.randn(200, 4)
    with torch.inference_mode():
        expected = theirs.module.generative(z, cells.library.log(), torch.zeros(200, 1).long())["px"].scale
        torch.testing.assert_close(ours.module.decode(z, cells).scale, expected, rtol=1e-4, atol=1e-6)


def test_bound(pair):
    theirs, ours = pair
    elbos = np.array([[float(model.get_elbo()) for _ in range(20)] for model in pair])
    error = elbos.std(1, ddof=1).max() / np.sqrt(20)
    assert abs(elbos.mean(1) @ [1, -1]) < 5 * error + 1e-4 * abs(elbos.mean())


def test_what_a_vae_has_not_is_named():
    adata = mixvi.datasets.blobs(50, 10, n_conditions=2, kind="count")
    scvi.model.SCVI.setup_anndata(adata, batch_key="condition")
    with pytest.raises(ValueError, match="number of batches=2; VAE.from_scvi"):
        mixvi.VAE.from_scvi(scvi.model.SCVI(adata))
    scvi.model.SCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match="dispersion='gene-cell'"):
        mixvi.VAE.from_scvi(scvi.model.SCVI(adata, dispersion="gene-cell"))
