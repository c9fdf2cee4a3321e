"""Every KL term against Monte Carlo (EXACTNESS row 19), and what the priors draw."""

import pytest
import torch
from torch.distributions import Normal

from mixvi.module.cells import Layout
from mixvi.module.mixtures import GaussianMixture, HierarchicalMixture
from mixvi.module.nets import Hidden
from mixvi.module.priors import ConditionalNormal, Flat, StandardNormal
from tests.module.monte_carlo import D, G, Q, assert_within_five_standard_errors, draw, scrambled, total


def test_row_19_standard_normal(qz, cells):
    z, log_q = draw(qz)
    log_p = Normal(0.0, 1.0).log_prob(z).sum(-1)
    terms = StandardNormal(D).kl(qz, qz.loc, cells)
    assert set(terms.annealed) == {"kl_z"}
    assert_within_five_standard_errors(log_q - log_p, total(terms))


def test_row_19_conditional_normal(qz, cells):
    prior = scrambled(ConditionalNormal(Q, D))
    z, log_q = draw(qz)
    loc = cells.c @ prior.loc.weight.T + prior.loc.bias
    scale = (cells.c @ prior.log_scale.weight.T + prior.log_scale.bias).exp()
    log_p = Normal(loc, scale).log_prob(z).sum(-1)
    assert_within_five_standard_errors((log_q - log_p).detach(), total(prior.kl(qz, qz.loc, cells)).detach())


def test_draws_have_the_moments_of_the_prior(cells):
    c = torch.zeros(50_000, Q).double()
    mixture = GaussianMixture(2, D).double()
    mixture.place(torch.tensor([[3.0] * D, [-3.0] * D]), torch.full((2, D), 0.5), torch.tensor([0.75, 0.25]))
    z = mixture.sample(c)
    torch.testing.assert_close((z[:, 0] > 0).double().mean().item(), 0.75, atol=0.01, rtol=0)
    z = mixture.sample(c, component=1)
    torch.testing.assert_close(z.mean(0), torch.full((D,), -3.0).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.full((D,), 0.5).double(), atol=0.02, rtol=0)
    z = StandardNormal(D).sample(c)
    torch.testing.assert_close(z.std(0), torch.ones(D).double(), atol=0.02, rtol=0)
    conditional = scrambled(ConditionalNormal(Q, D))
    torch.testing.assert_close(conditional.sample(c).mean(0), conditional.loc.bias.detach(), atol=0.05, rtol=0)
    hierarchical = HierarchicalMixture(Layout(G), 2, D, Hidden(8)).double().eval()
    hierarchical.place(torch.tensor([[3.0] * D, [-3.0] * D]), torch.full((2, D), 0.5), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(hierarchical.sample(c, 1).mean(0), torch.full((D,), -3.0).double(), atol=0.02, rtol=0)


def test_priors_without_components_refuse_one(cells):
    for prior in (StandardNormal(D), ConditionalNormal(Q, D)):
        with pytest.raises(ValueError, match="use mixvi.GMVAE"):
            prior.sample(cells.c.float(), component=1)
    with pytest.raises(ValueError, match="improper"):
        Flat().sample(cells.c)


def test_a_learned_prior_without_conditions_is_one_normal(recwarn):
    pz = ConditionalNormal(0, D).given(torch.zeros(3, 0))
    assert not recwarn
    assert pz.loc.shape == (3, D)
    assert (pz.scale == 1).all()
