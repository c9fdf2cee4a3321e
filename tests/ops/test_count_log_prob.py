"""Fast log-likelihoods of counts against the plain formulas, values and gradients."""

import pytest
import torch

from mixvi.ops import count_log_prob as counts
from mixvi.ops.count_log_prob import log_negative_binomial
from tests.ops.helpers import G, N, as_csr, draw, plain, relative


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "n_parameters", "each"),
    [
        ("poisson", 1, False), ("negative_binomial", 2, False), ("negative_binomial", 2, True),
        ("zero_inflated", 3, False), ("zero_inflated", 3, True),
    ],
)  # fmt: skip
def test_values_and_gradients_are_those_of_the_plain_formula(name, n_parameters, each, dtype, layout):
    x, mu, theta, logits = draw(dtype)
    if each:  # cell has a theta of its own
        theta = (theta.detach() * torch.logspace(-1, 1, N, dtype=dtype).unsqueeze(-1)).requires_grad_()
    parameters = [mu, theta, logits][:n_parameters]
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


def test_digamma():
    y = torch.cat([1 + torch.rand(500).double() * 3, torch.logspace(0, 6, 500, dtype=torch.float64)])
    torch.testing.assert_close(counts._digamma(y), y.digamma(), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("theta", [10.0, 1e2, 1e3])
def test_many_genes_do_not_cancel(theta):
    mu = (3000 * torch.randn(64, 2000).softmax(-1)).double()
    x = torch.poisson(mu)
    exact = log_negative_binomial(x, mu, torch.full((2000,), theta).double())
    found = log_negative_binomial(x.float(), mu.float(), torch.full((2000,), theta))
    torch.testing.assert_close(found.double(), exact, rtol=5e-4, atol=0)
