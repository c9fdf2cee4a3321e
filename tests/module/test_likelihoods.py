"""Likelihoods against scipy (EXACTNESS row 18) and their limits."""

import numpy as np
import pytest
import torch
from scipy import stats

from mixvi.module.cells import Cells, Layout
from mixvi.module.likelihoods import LIKELIHOODS, Bernoulli, NegativeBinomial, Normal, Poisson
from mixvi.module.likelihoods import ZeroInflatedNegativeBinomial as ZINB
from mixvi.module.nets import Hidden

N, G, D = 6, 5, 3
LINEAR = Hidden(n_layers=0)


@pytest.fixture
def z():
    return torch.randn(N, D, dtype=torch.float64)


def make(likelihood, **kwargs):
    part = likelihood(Layout(G), D, LINEAR, **kwargs).double()
    if hasattr(part, "log_theta"):
        torch.nn.init.normal_(part.log_theta)
    return part


def cells(x):
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    return Cells(x=x, seen=x, library=torch.full((N, 1), 40.0).double(), c=x[:, :0], y=x[:, :0], stored=x[:, :0])


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


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("size_factor", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_row_18_the_loss_scores_cells_by_that_density(name, size_factor, sparse, dtype, rtol, rng):
    """What training maximises, its fast way included, is the density that the tests above hold against scipy."""
    part = LIKELIHOODS[name](Layout(G, size_factor=size_factor), D, LINEAR)
    if hasattr(part, "log_theta"):
        torch.nn.init.normal_(part.log_theta)
    part = part.to(dtype)
    x = torch.as_tensor(rng.poisson(1, (N, G)), dtype=dtype)
    x = x.clamp(max=1) if name == "bernoulli" else x
    library = torch.linspace(0.5, 60, N, dtype=dtype).unsqueeze(-1)
    some = Cells(*(values.to(dtype) for values in cells(x)))._replace(
        x=x.to_sparse_csr() if sparse else x, library=library
    )
    z = torch.randn(2, N, D, dtype=dtype, requires_grad=True)
    plain = part(z, some).log_prob(x).sum(-1)
    fast = part.log_prob(z, some)
    torch.testing.assert_close(fast, plain, rtol=rtol, atol=0.0)
    weight = torch.randn(2, N, dtype=dtype)
    expected, found = (torch.autograd.grad((weight * value).sum(), [z, *part.parameters()]) for value in (plain, fast))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=10 * rtol, atol=100 * rtol)


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


def test_normal_against_scipy(z, rng):
    part, x = make(Normal), rng.normal(size=(N, G))
    torch.nn.init.constant_(part.log_sigma, -0.3)
    expected = stats.norm.logpdf(x, part.loc(z).detach(), np.exp(-0.3))
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-10)


def test_fixed_sigma_does_not_learn_and_is_the_squared_error(z, rng):
    part, x = make(Normal, sigma=0.5), cells(rng.normal(size=(N, G)))
    assert not part.log_sigma.requires_grad
    p = part(z, x)
    log_px = p.log_prob(x.x).sum(-1)
    squared_error = ((x.x - p.mean) ** 2).sum(-1)
    constant = -G * np.log(0.5 * np.sqrt(2 * np.pi))
    torch.testing.assert_close(log_px, -squared_error / (2 * 0.25) + constant, rtol=1e-6, atol=1e-6)


def test_bernoulli_against_scipy(z, rng):
    part, x = make(Bernoulli), rng.integers(2, size=(N, G))
    expected = stats.bernoulli.logpmf(x, torch.sigmoid(part.logits(z)).detach())
    np.testing.assert_allclose(part(z, cells(x)).log_prob(cells(x).x).detach(), expected, rtol=1e-6)


def test_bernoulli_scores_grey_values_by_cross_entropy(z, rng):
    part, x = make(Bernoulli), cells(rng.uniform(size=(N, G)))
    p = torch.sigmoid(part.logits(z))
    expected = x.x * p.log() + (1 - x.x) * (1 - p).log()
    torch.testing.assert_close(part(z, x).log_prob(x.x), expected)


def test_counts_enter_the_encoder_on_the_log_scale():
    x = torch.tensor([[0.0, 1.0, 9.0]]).double()
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
