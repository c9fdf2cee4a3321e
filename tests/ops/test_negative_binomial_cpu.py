"""The kernel against the plain formula, whatever lies where."""

import numpy as np
import pytest
import torch

from mixvi.ops.csr import csr
from mixvi.ops.negative_binomial_cpu import NegativeBinomialSoftmax
from tests.ops.helpers import G, N, as_csr, draw, draw_head, plain, relative


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("alike", [True, False])
def test_kernel_is_the_plain_formula_in_single_precision(layout, spread, alike):
    """Cells that weigh alike take one pass, others another."""
    x, *_ = draw(torch.float32)
    h, weight, bias, library, theta = draw_head(x, spread)
    parameters = [p.requires_grad_() for p in (h, weight, bias, theta)]
    double = [p.detach().double().requires_grad_() for p in parameters]
    found = NegativeBinomialSoftmax.apply(as_csr(x) if layout == "csr" else x, h, weight, bias, library, theta)
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


def test_kernel_takes_single_precision_with_one_theta_for_each_gene():
    h, *_, theta = draw_head(torch.ones(N, G))
    takes = NegativeBinomialSoftmax.takes
    assert takes(h, theta)
    assert not takes(h.double(), theta.double())
    assert not takes(h.to("meta"), theta.to("meta"))
    assert not takes(h, theta.repeat(N, 1))
    assert not torch.compile(takes, backend="eager")(h, theta)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes(h, theta)


def test_kernel_lets_nan_through():
    x, *_ = draw(torch.float32)
    h, weight, bias, *others = draw_head(x)
    h[4, 5] = torch.nan
    log_p = NegativeBinomialSoftmax.apply(x, h, weight, bias, *others)
    assert log_p.isnan().nonzero().squeeze().tolist() == 4
    h[4, 5], bias[5] = 0, torch.nan  # one logit of each cell, among finite ones
    assert NegativeBinomialSoftmax.apply(x, h, weight, bias, *others).isnan().all()


def test_no_cells_have_no_gradient():
    h, weight, bias, library, theta = draw_head(torch.zeros(0, G))
    log_p = NegativeBinomialSoftmax.apply(torch.zeros(0, G), h, weight.requires_grad_(), bias, library, theta)
    assert not torch.autograd.grad(log_p.sum(), weight)[0].any()


def test_kernel_gives_the_same_bits_wherever_its_arrays_lie():
    """Loops over memory that the compiler cannot tell apart may run one way or the other."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.poisson(rng.gamma(0.3, size=(200, 2000))).astype(np.float32))
    arrays = [values.requires_grad_() for values in draw_head(x)]

    def values_and_gradients(x, *arrays):
        log_p = NegativeBinomialSoftmax.apply(x, *arrays)
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
