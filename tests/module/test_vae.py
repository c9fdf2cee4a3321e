"""The VAE: its KL as the docstring has it."""

import torch

from mixvi.module import Layout, VAEModule
from mixvi.module.likelihoods import NegativeBinomial
from tests.module.bounds import HIDDEN, D, G, ready


def test_kl_is_the_closed_form_and_the_bound_has_no_other_term(tensors):
    module = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    cells = module.read(tensors)
    qz = module.encode(cells)
    _, terms = module.bound(cells)
    kl = (qz.loc**2 + qz.scale**2 - 1 - (qz.scale**2).log()).sum(-1) / 2
    assert (set(terms.annealed), terms.fixed) == ({"kl_z"}, {})
    torch.testing.assert_close(terms.annealed["kl_z"], kl)
    assert module.factors == (("p(z)", "p(x | z)"), ("q(z | x)",))
