"""Likelihoods of counts against scipy (EXACTNESS row 18) and their limits."""

import numpy as np
import pytest
import torch
from scipy import stats

from mixvi.module.cells import Layout
from mixvi.module.likelihoods import LIKELIHOODS, NegativeBinomial, Poisson
from mixvi.module.likelihoods import ZeroInflatedNegativeBinomial as ZINB
from tests.module.drawn import LINEAR, D, G, N, cells, make


@pytest.fixture
def z():
    return torch.randn(N, D, dtype=torch.float64)


def mean_of_counts(part, z):
    """library * softmax(W z + b), written out with numpy."""
    logits = z.numpy() @ part.rho.weight.detach().numpy().T + part.rho.bias.detach().numpy()
    rho = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return 40 * rho


def scipy_nb(x, mu, theta):
    return stats.nbinom.logpmf(x, theta, theta / (theta + mu))


def test_row_18_poisson(z, rng):
    part, x = make(Poisson), rng.poisson(5, (N, G))
    expected = stats.poisson.logpmf(x, mean_of_counts(part, z))
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-5)


def test_row_18_negative_binomial(z, rng):
    part, x = make(NegativeBinomial), rng.poisson(5, (N, G))
    expected = scipy_nb(x, mean_of_counts(part, z), part.log_theta.exp().detach().numpy())
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-5)


def test_row_18_zero_inflated(z, rng):
    part, x = make(ZINB), rng.poisson(1, (N, G))
    p0 = torch.sigmoid(part.zero_logits(z)).detach().numpy()
    nb = np.exp(scipy_nb(x, mean_of_counts(part, z), part.log_theta.exp().detach().numpy()))
    expected = np.log(p0 * (x == 0) + (1 - p0) * nb)
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-5)


@pytest.mark.parametrize("likelihood", [NegativeBinomial, ZINB])
def test_each_batch_has_the_likelihood_of_its_own_dispersion(likelihood, z, rng):
    layout = Layout(G, batch_levels=2, n_continuous=1)
    both, one = (likelihood(layout, D, LINEAR, by_batch=by_batch).double() for by_batch in (True, False))
    torch.nn.init.normal_(both.log_theta)
    batch = torch.arange(N) % 2
    c = torch.cat([torch.eye(2)[batch], torch.randn(N, 1)], 1).double()
    some = cells(rng.poisson(5, (N, G)))._replace(c=c)

    def results(part):
        yield from (part.log_prob(z, some), part(z, some).log_prob(some.x), part(z, some).variance)
        yield part.expected_seen(z, some, torch.arange(G) > 1)

    for b in (0, 1):
        one.load_state_dict(both.state_dict() | {"log_theta": both.log_theta[b].detach()})
        for found, expected in zip(results(both), results(one), strict=True):
            torch.testing.assert_close(found[batch == b], expected[batch == b], rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [Layout(G), Layout(G, size_factor=True), Layout(G, batch_levels=2)])
def test_other_precisions_and_ways_give_the_same(layout, precision, z, rng):
    """Single precision has a compiled pass on the CPU, if shares are a softmax and batches have one theta."""
    part = NegativeBinomial(layout, D, LINEAR, by_batch=layout.batch_levels > 0)
    some = cells(rng.poisson(5, (N, G)))._replace(c=torch.eye(2)[torch.arange(N) % 2, : layout.batch_levels].double())
    expected = part.double().log_prob(z, some)
    part, z = part.float(), z.float()
    some = some._replace(x=some.x.float(), c=some.c.float(), library=some.library.float())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = part.log_prob(z, some)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5 if precision == torch.float32 else 2e-2, atol=0)


def test_row_18_negative_binomial_tends_to_poisson(z, rng):
    part, x = make(NegativeBinomial), rng.poisson(5, (N, G))
    poisson = stats.poisson.logpmf(x, mean_of_counts(part, z))
    gaps = []
    for theta in (1e3, 1e5, 1e7):
        torch.nn.init.constant_(part.log_theta, np.log(theta))
        log_prob = part(z, cells(x)).log_prob(cells(x).x).detach().numpy()
        gaps.append(np.abs(log_prob - poisson).max())
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]
    np.testing.assert_allclose(log_prob, poisson, rtol=1e-5)


def test_row_18_zero_inflated_tends_to_negative_binomial(z, rng):
    part, x = make(ZINB), rng.poisson(1, (N, G))
    torch.nn.init.zeros_(part.zero_logits.weight)
    torch.nn.init.constant_(part.zero_logits.bias, -30)
    expected = scipy_nb(x, mean_of_counts(part, z), part.log_theta.exp().detach().numpy())
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-5)


def test_counts_enter_the_encoder_on_the_log_scale():
    x = torch.tensor([[0.0, 1.0, 9.0, 2.0, 0.0]]).double()
    for likelihood in LIKELIHOODS.values():
        expected = x.log1p() if likelihood.support == "count" else x
        torch.testing.assert_close(make(likelihood).prepare(x), expected)


def test_expected_counts_add_up_to_the_library(z, rng):
    p = make(NegativeBinomial)(z, cells(rng.poisson(5, (N, G))))
    torch.testing.assert_close(p.mean.sum(-1), torch.full((N,), 40.0).double())


def test_own_size_factors_leave_the_total_free(z, rng):
    part = NegativeBinomial(Layout(G, size_factor=True), D, LINEAR).double()
    p = part(z, cells(rng.poisson(5, (N, G))))
    assert p.mean.sum(-1).std() > 1e-3
    assert (p.mean > 0).all()


def test_size_factors_have_the_unit_of_the_total_counts(z, rng):
    x = torch.as_tensor(rng.poisson(5, (N, G)), dtype=torch.float64)
    found = []
    for unit in (1.0, 1e-4):
        torch.manual_seed(0)
        part = NegativeBinomial(Layout(G, size_factor=True), D, LINEAR).double()
        same = cells(x)._replace(library=x.sum(1, keepdim=True) * unit)
        part.measure(part.scaled(same))
        assert part.unit.item() == pytest.approx(1 / unit)
        found.append(part.log_prob(z, same).detach())
    np.testing.assert_allclose(*found)
