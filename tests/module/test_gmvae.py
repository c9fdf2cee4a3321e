"""A mixture whose components are all alike is a VAE (EXACTNESS row 20)."""

import pytest
import torch

from mixvi.module import GMVAEModule, Layout, VAEModule
from mixvi.module.likelihoods import NegativeBinomial
from tests.module.bounds import HIDDEN, D, G, copy_parts, negative_elbo, ready


@pytest.mark.parametrize("hierarchical", [False, True])
def test_row_20_gmvae_with_one_component_is_vae(tensors, hierarchical):
    vae = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    gmvae = ready(GMVAEModule(Layout(G), NegativeBinomial, 1, D, HIDDEN, hierarchical=hierarchical))
    copy_parts(vae, gmvae, "encoder", "likelihood")
    expected, found = negative_elbo(vae, tensors), negative_elbo(gmvae, tensors)
    if hierarchical:  # w is a latent that explains nothing here: only its own cost is added
        torch.manual_seed(0)
        found = found - gmvae(tensors)[2].kl_local["kl_w"].mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_row_20_untouched_gmvae_is_vae_for_any_number_of_components(tensors):
    vae = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    gmvae = ready(GMVAEModule(Layout(G), NegativeBinomial, None, D, HIDDEN))
    copy_parts(vae, gmvae, "encoder", "likelihood")
    torch.testing.assert_close(negative_elbo(gmvae, tensors), negative_elbo(vae, tensors), rtol=1e-6, atol=1e-6)
