"""Conditions that do not differ make a VAE (EXACTNESS row 20)."""

import pytest
import torch
from scvi import REGISTRY_KEYS

from mixvi.module import CVAEModule, Layout, VAEModule
from mixvi.module.likelihoods import NegativeBinomial
from tests.module.bounds import HIDDEN, D, G, N, negative_elbo, ready


@pytest.mark.parametrize("learned_prior", [False, True])
def test_row_20_cvae_with_one_level_is_vae(tensors, learned_prior):
    tensors[REGISTRY_KEYS.BATCH_KEY] = torch.zeros(N, 1)
    vae = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    cvae = ready(CVAEModule(Layout(G, batch_levels=1), NegativeBinomial, D, HIDDEN, learned_prior))
    for part in ("encoder", "likelihood"):  # the one constant condition gets weight 0
        source, target = getattr(vae, part).state_dict(), getattr(cvae, part).state_dict()
        for name, values in target.items():
            target[name] = torch.zeros_like(values)
            if name in source:
                target[name][(..., *(slice(size) for size in source[name].shape))] = source[name]
        getattr(cvae, part).load_state_dict(target)
    torch.testing.assert_close(negative_elbo(cvae, tensors), negative_elbo(vae, tensors), rtol=1e-6, atol=1e-6)
