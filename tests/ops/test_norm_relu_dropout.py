"""Batch norm, ReLU and dropout in one pass against torch's, one by one."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mixvi.ops.norm_relu_dropout import activate

P = 0.25


@pytest.fixture
def norm():
    norm = nn.BatchNorm1d(9, momentum=0.01, eps=0.001)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def test_values_gradients_and_running_statistics_are_those_of_torch(norm):
    h, upstream = (torch.randn(33, 9) * 3 + 5).requires_grad_(), torch.randn(33, 9)
    plain, double = deepcopy(norm).double(), h.detach().double().requires_grad_()
    out = activate(h, norm, nn.Dropout(P))
    before = plain(double).relu()
    assert (out[before == 0] == 0).all()
    expected = before * (out != 0) / (1 - P)  # whatever was dropped: how much is, is asserted below
    torch.testing.assert_close(out, expected.float())
    for a, b in zip(
        torch.autograd.grad(out, (h, *norm.parameters()), upstream),
        torch.autograd.grad(expected, (double, *plain.parameters()), upstream.double()),
        strict=True,
    ):
        assert (a - b).norm() < 1e-5 * b.norm()
    for a, b in zip(norm.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b.to(a))


def test_it_does_not_matter_how_cells_lie_in_memory(norm):
    h, again = torch.randn(9, 20).t(), deepcopy(norm)
    torch.manual_seed(0)
    out = activate(h, norm, nn.Dropout(P))
    torch.manual_seed(0)
    assert torch.equal(out, activate(h.contiguous(), again, nn.Dropout(P)))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(p):
    n, norm = 40_001, nn.BatchNorm1d(10)  # odd: units do not fill the last draw
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    out = activate(torch.randn(n, 10), norm, nn.Dropout(p))
    dropped = out == 0
    assert abs(dropped.float().mean() - p) <= 5 * (p * (1 - p) / (10 * n)) ** 0.5 + 2**-16
    torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], 1 / (1 - p)), rtol=1e-4, atol=0)
    together = (dropped[:, 1:] & dropped[:, :-1]).float().mean()  # neighbours share a draw, and are independent
    assert abs(together - p**2) <= 5 * (p**2 / (9 * n)) ** 0.5


@pytest.mark.parametrize("p", [0.0, P])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_use_and_without_dropout_it_is_torch_itself(norm, dtype, p):
    h, norm, dropout = torch.randn(5, 9).to(dtype), norm.to(dtype), nn.Dropout(p)
    if p:
        norm.eval(), dropout.eval()
    plain = deepcopy(norm)
    assert torch.equal(activate(h, norm, dropout), plain(h).relu())
    for a, b in zip(norm.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(9, momentum=None),  # as Lightning's stochastic weight averaging has it
        nn.BatchNorm1d(9, affine=False),
        nn.BatchNorm1d(9, track_running_stats=False),
        nn.LayerNorm(9),
        nn.Identity(),
        nn.BatchNorm1d(9).double(),
    ],
)
def test_norms_it_does_not_know_are_torchs(norm):
    h = torch.randn(33, 9).to(next(norm.parameters(), torch.zeros(0)).dtype)
    plain, before = deepcopy(norm), torch.random.get_rng_state()
    out = activate(h, norm, nn.Dropout(P))
    torch.random.set_rng_state(before)
    assert torch.equal(out, nn.Dropout(P)(plain(h).relu()))
    for a, b in zip(norm.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_one_cell_is_normalised_by_running_statistics(norm):
    for _ in range(50):
        activate(torch.randn(33, 9) * 3 + 5, norm, nn.Dropout(P))
    before = deepcopy(norm)
    h = torch.randn(1, 9, requires_grad=True)
    out, expected = activate(h, norm, nn.Dropout(P)), before.eval()(h).relu() / (1 - P)
    torch.testing.assert_close(out[out != 0], expected[out != 0])
    assert torch.autograd.grad(out.sum(), norm.weight)[0].any()
    for a, b in zip(norm.buffers(), before.buffers(), strict=True):
        assert torch.equal(a, b)


def test_nan_comes_through(norm):
    h = torch.randn(7, 9)
    h[2, 3] = torch.nan
    assert activate(h, norm, nn.Dropout(P))[:, 3].isnan().any()


def test_the_same_seed_drops_the_same_units(norm):
    h = torch.randn(7, 9)
    first, again, other = ((torch.manual_seed(seed), activate(h, norm, nn.Dropout(P)))[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
