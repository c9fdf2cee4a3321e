"""Likelihoods of real values and of values in [0, 1] against scipy (EXACTNESS row 18), and the loss of all."""

import numpy as np
import pytest
import torch
from scipy import stats

from mixvi.module.cells import Cells, Layout
from mixvi.module.likelihoods import LIKELIHOODS, Bernoulli, Normal
from mixvi.module.nets import Hidden
from tests.module.drawn import LINEAR, D, G, N, cells, make


@pytest.fixture
def z():
    return torch.randn(N, D, dtype=torch.float64)


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


def test_a_normal_with_hidden_layers_has_the_unit_and_the_centre_of_its_data(z, rng):
    x = torch.as_tensor(rng.normal(size=(N, G)))
    part = Normal(Layout(G), D, Hidden(8, 1, 0.0)).double().eval()
    part.measure(x)
    before, seen = part.log_prob(z, cells(x)), part.prepare(x)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-12)
    assert seen.var(0, correction=0).mean().item() == pytest.approx(1)
    other = 1000 * x + 7
    part.unit, part.center = torch.ones(()).double(), torch.zeros(G).double()
    part.measure(other)
    np.testing.assert_allclose(part.prepare(other), seen)
    np.testing.assert_allclose(
        part.log_prob(z, cells(other)).detach(), before.detach() - G * np.log(1000), rtol=1e-9
    )  # a density in another unit


def test_values_that_are_all_alike_have_the_unit_one():
    part = Normal(Layout(G), D, Hidden(8, 1, 0.0))
    part.measure(torch.full((N, G), 3.0))
    assert part.unit.item() == 1
    assert (part.center == 3).all()
