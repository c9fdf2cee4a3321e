"""What is carried keeps its quantile: the other distribution is met, and nothing moves where nothing changes."""

import numpy as np
import pytest
import scvi.distributions as scvi_distributions
import torch
from scipy import stats
from torch.distributions import Bernoulli, Normal

from mixvi.ops.quantile_map import carry

N = 4000
MU, THETA = torch.tensor([0.05, 0.7, 4.0, 300.0]), torch.tensor([0.3, 1.0, 5.0, 2.0])


def nb(factor):
    return scvi_distributions.NegativeBinomial(mu=(MU * factor).expand(N, 4), theta=THETA.expand(N, 4))


def zinb(factor):
    logits = torch.tensor([-2.0, 0.0, 1.0, -1.0]).expand(N, 4)
    return scvi_distributions.ZeroInflatedNegativeBinomial(
        mu=(MU * factor).expand(N, 4), theta=THETA.expand(N, 4), zi_logits=logits
    )


def poisson(factor):
    return scvi_distributions.Poisson((MU * factor).expand(N, 4))


def normal(factor):
    return Normal((MU * factor).expand(N, 4), THETA.expand(N, 4) * factor)


def bernoulli(factor):
    return Bernoulli(probs=(torch.tensor([0.1, 0.2, 0.3, 0.45]) * factor).expand(N, 4))


@pytest.mark.parametrize("of", [nb, zinb, poisson, normal, bernoulli])
@pytest.mark.parametrize("factor", [0.4, 2.0])
def test_carried_values_are_draws_from_the_other_distribution(of, factor):
    torch.manual_seed(0)
    found = carry(of(1.0).sample(), of(1.0), of(factor)).numpy()
    expected = of(factor).sample().numpy()
    for gene in range(4):
        assert stats.ks_2samp(found[:, gene], expected[:, gene]).pvalue > 1e-4


@pytest.mark.parametrize("of", [nb, zinb, poisson, normal])
def test_values_stay_where_nothing_changes(of):
    torch.manual_seed(0)
    x = of(1.0).sample()
    np.testing.assert_allclose(carry(x, of(1.0), of(1.0)), x, rtol=1e-5, atol=1e-5)
    for far in ([0.0, 1.0, 50.0, 1e5], [20.0, 500.0, 500.0, 0.0]):  # what the model holds for impossible
        x = torch.tensor([far]).expand(N, 4)
        np.testing.assert_allclose(carry(x, of(1.0), of(1.0)), x)
        assert torch.isfinite(carry(x, of(1.0), of(2.0))).all()


def test_a_count_that_was_sure_to_be_zero_stays_and_does_not_explode():
    def sure(logit, mu=5.0):
        return scvi_distributions.ZeroInflatedNegativeBinomial(
            mu=torch.full((1, 3), mu), theta=torch.ones(1, 3), zi_logits=torch.full((1, 3), logit)
        )

    x = torch.tensor([[1.0, 3.0, 10.0]])
    for logit in (17.0, 40.0):
        assert torch.equal(carry(x, sure(logit), sure(logit)), x)
        assert (carry(x, sure(logit), sure(-3.0)) <= 10).all()
    assert (carry(x, sure(40.0, 1e-20), sure(-3.0)) < 100).all()


@pytest.mark.parametrize("of", [nb, zinb, poisson])
def test_counts_rise_with_their_mean(of):
    torch.manual_seed(0)
    x = of(1.0).sample()
    assert (carry(x, of(1.0), of(2.0)) >= x).all()
    assert (carry(x, of(1.0), of(0.5)) <= x).all()


def test_zeros_and_ones_stay_where_nothing_changes():
    torch.manual_seed(0)
    x = bernoulli(1.0).sample()
    assert torch.equal(carry(x, bernoulli(1.0), bernoulli(1.0)), x)
    grey = carry(torch.full((N, 4), 0.3), bernoulli(1.0), bernoulli(1.0))
    assert set(grey.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(grey.mean(0), 0.3, atol=0.05)


def test_the_ends_of_a_parameters_range_give_values():
    x = torch.tensor([[0.0, 2.0, 7.0, 1.0]])
    for theta in (0.0, torch.inf):
        here, there = (
            scvi_distributions.NegativeBinomial(mu=torch.full((1, 4), mu), theta=torch.full((1, 4), theta))
            for mu in (3.0, 6.0)
        )
        found = carry(x, here, there)
        assert torch.isfinite(found).all()
        assert (found >= x).all()
        assert torch.equal(carry(x, here, here), x)
    still = Normal(x, torch.zeros(1, 4), validate_args=False)
    assert torch.equal(carry(x, still, Normal(x + 1, torch.zeros(1, 4), validate_args=False)), x + 1)
    for scale in (0.0, 1.0):
        there = Normal(x + 1, torch.full((1, 4), scale), validate_args=False)
        assert torch.equal(carry(x + 2, still, there), x + 3)


def test_what_is_not_a_number_stays_so():
    x, mu = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[3.0, 3.0, torch.nan]])
    good, bad = (scvi_distributions.NegativeBinomial(mu=m, theta=torch.ones(3)) for m in (torch.full((1, 3), 3.0), mu))
    for found in (carry(x, good, bad), carry(x, bad, good)):
        assert torch.equal(found[:, :2], x[:, :2])
        assert found[:, 2].isnan().all()
