"""Fast log-likelihoods of counts against the plain formulas, values and gradients."""

import numpy as np
import pytest
import torch
from scvi import distributions

from mixvi.ops import count_log_prob as counts
from mixvi.ops.csr import csr, dense
from tests.ops.test_csr import as_csr

N, G = 40, 60


def draw(dtype):
    """Sparse counts with an empty cell and a very large count, and parameters of all sizes."""
    x = torch.poisson(torch.rand(N, G) * 4 * (torch.rand(N, G) < 0.3)).to(dtype)
    x[0], x[1, 2], x[2, 3] = 0, 3_000, 120
    mu = (torch.rand(N, G).to(dtype) * 4).pow(3) + 1e-3
    theta = torch.logspace(-2, 3, G, dtype=dtype)
    return x, mu.requires_grad_(), theta.requires_grad_(), torch.randn(N, G).to(dtype).requires_grad_()


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def plain(name, x, mu, theta, logits):
    """The formula in the docstring, in double precision, from scvi-tools; it is tested against scipy elsewhere."""
    px = {
        "poisson": lambda: distributions.Poisson(mu, validate_args=False),
        "negative_binomial": lambda: distributions.NegativeBinomial(mu=mu, theta=theta, validate_args=False),
        "zero_inflated": lambda: distributions.ZeroInflatedNegativeBinomial(
            mu=mu, theta=theta, zi_logits=logits, validate_args=False
        ),
    }[name]()
    return px.log_prob(x).sum(-1)


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "n_parameters"), [("poisson", 1), ("negative_binomial", 2), ("zero_inflated", 3)])
def test_values_and_gradients_are_those_of_the_plain_formula(name, n_parameters, dtype, layout):
    x, *parameters = draw(dtype)
    parameters = parameters[:n_parameters]
    double = [p.detach().double().requires_grad_() for p in parameters]
    nothing = [None] * (3 - n_parameters)
    found = getattr(counts, f"log_{name}")(as_csr(x) if layout == "csr" else x, *parameters)
    same_precision = plain(name, x, *parameters, *nothing)
    expected = plain(name, x.double(), *double, *nothing)
    assert relative(found, expected) < max(1e-5, relative(same_precision, expected))
    upstream = torch.rand(N).to(dtype)
    for a, b, c in zip(
        torch.autograd.grad(found, parameters, upstream),
        torch.autograd.grad(same_precision, parameters, upstream),
        torch.autograd.grad(expected, double, upstream.double()),
        strict=True,
    ):
        assert relative(a, c) < max(1e-5, 2 * relative(b, c))


@pytest.mark.parametrize(("name", "n_parameters"), [("poisson", 1), ("negative_binomial", 2), ("zero_inflated", 3)])
def test_compiled_formulas_lose_nothing_where_counts_are_nearly_poisson(name, n_parameters):
    """At a large theta its gradients cancel nearly; what is left must not be rounding."""
    x, mu, _, logits = draw(torch.float32)
    theta = torch.full((G,), 400.0, requires_grad=True)
    parameters = (mu.detach().clamp(max=2).requires_grad_(), theta, logits)[:n_parameters]
    x[1, 2] = x[2, 3] = 1
    compiled = torch.compile(getattr(counts, f"log_{name}"), backend="aot_eager", fullgraph=True)
    found = compiled(x, *parameters)
    double = [p.detach().double().requires_grad_() for p in parameters]
    expected = plain(name, x.double(), *double, *[None] * (3 - n_parameters))
    assert relative(found, expected) < 1e-5
    eager = getattr(counts, f"log_{name}")(x, *parameters)
    ours, plain_step, exact = (
        torch.autograd.grad(value.sum(), by)
        for value, by in ((found, parameters), (eager, parameters), (expected, double))
    )
    for a, b, c in zip(ours, plain_step, exact, strict=True):
        assert relative(a, c) < max(1e-2, 2 * relative(b, c))


def draw_head(x, spread=1.0):
    """Features, weight and bias of a decoder, library sizes and theta."""
    h, weight, bias = torch.randn(len(x), 7), torch.randn(x.shape[1], 7) * spread, torch.randn(x.shape[1]) * spread
    return h, weight, bias, x.sum(-1, keepdim=True) + 1, torch.logspace(-2, 3, x.shape[1])


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("alike", [True, False])
def test_kernel_is_the_plain_formula_in_single_precision(layout, spread, alike):
    """Cells that weigh alike take one pass, others another."""
    x, *_ = draw(torch.float32)
    h, weight, bias, library, theta = draw_head(x, spread)
    parameters = [p.requires_grad_() for p in (h, weight, bias, theta)]
    double = [p.detach().double().requires_grad_() for p in parameters]
    found = counts.log_negative_binomial_softmax(as_csr(x) if layout == "csr" else x, h, weight, bias, library, theta)
    mu = library.double() * (double[0] @ double[1].t() + double[2]).softmax(-1)
    expected = plain("negative_binomial", x.double(), mu, double[3], None)
    assert found.dtype == torch.float32
    assert relative(found, expected) < 1e-5
    upstream = torch.full((N,), -0.3) if alike else torch.rand(N)
    for a, b in zip(
        torch.autograd.grad(found, parameters, upstream),
        torch.autograd.grad(expected, double, upstream.double()),
        strict=True,
    ):
        assert relative(a, b) < 1e-5


def test_kernel_lets_nan_through():
    x, *_ = draw(torch.float32)
    h, weight, bias, *others = draw_head(x)
    h[4, 5] = torch.nan
    log_p = counts.log_negative_binomial_softmax(x, h, weight, bias, *others)
    assert log_p.isnan().nonzero().squeeze().tolist() == 4
    h[4, 5], bias[5] = 0, torch.nan  # one logit of each cell, among finite ones
    assert counts.log_negative_binomial_softmax(x, h, weight, bias, *others).isnan().all()


def test_no_cells_have_no_gradient():
    h, weight, bias, library, theta = draw_head(torch.zeros(0, G))
    log_p = counts.log_negative_binomial_softmax(torch.zeros(0, G), h, weight.requires_grad_(), bias, library, theta)
    assert not torch.autograd.grad(log_p.sum(), weight)[0].any()


def test_half_precision_takes_the_formula_in_torch():
    x, *_ = draw(torch.float32)
    arrays = draw_head(x, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = counts.log_negative_binomial_softmax(x, *arrays)
    assert relative(found, counts.log_negative_binomial_softmax(x, *arrays)) < 1e-2


def test_kernel_gives_the_same_bits_wherever_its_arrays_lie():
    """Loops over memory that the compiler cannot tell apart may run one way or the other."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.poisson(rng.gamma(0.3, size=(200, 2000))).astype(np.float32))
    arrays = [values.requires_grad_() for values in draw_head(x)]

    def values_and_gradients(x, *arrays):
        log_p = counts.log_negative_binomial_softmax(x, *arrays)
        h, weight, bias, _, theta = arrays
        return log_p, *torch.autograd.grad(log_p.mean(), (h, weight, bias, theta))

    x = as_csr(x)
    first, others = values_and_gradients(x, *arrays), []
    for _ in range(200):
        others = [*others[-30:], np.empty(rng.integers(100_000), dtype=np.uint8)]  # moves what is allocated next
        crow, column, value = (part.clone() for part in (x.crow_indices(), x.col_indices(), x.values()))
        moved = [values.detach().clone().requires_grad_() for values in arrays]
        again = values_and_gradients(csr(crow, column, value, 2000), *moved)
        assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))


def test_double_precision_takes_the_formula_in_torch():
    x, *_ = draw(torch.float64)
    h, weight, bias, library, theta = (values.double() for values in draw_head(x))
    found = counts.log_negative_binomial_softmax(as_csr(x), h, weight, bias, library, theta)
    assert found.dtype == torch.float64
    mu = library * (h @ weight.t() + bias).softmax(-1)
    expected = plain("negative_binomial", dense(x), mu, theta, None)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_digamma():
    y = torch.cat([1 + torch.rand(500).double() * 3, torch.logspace(0, 6, 500, dtype=torch.float64)])
    torch.testing.assert_close(counts._digamma(y), y.digamma(), rtol=1e-10, atol=1e-11)
