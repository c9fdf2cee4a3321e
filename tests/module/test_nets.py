"""Dropout from a few bits."""

import pytest
import torch

from mixvi.module.nets import Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(p):
    n = 400_000
    h = torch.ones(n // 10, 10, requires_grad=True)
    out = Dropout(p)(h)
    dropped = out == 0
    assert abs(dropped.float().mean() - p) <= 5 * (p * (1 - p) / n) ** 0.5 + 2**-16
    torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], 1 / (1 - p)), rtol=1e-4, atol=0)
    together = (dropped[:, 1:] & dropped[:, :-1]).float().mean()  # neighbours share a draw, and are independent
    assert abs(together - p**2) <= 5 * (p**2 / n) ** 0.5
    (grad,) = torch.autograd.grad(out.sum(), h)
    torch.testing.assert_close(grad, out.detach())


def test_dropout_does_nothing_to_a_module_in_use():
    h = torch.randn(7, 3)
    assert Dropout(0.5).eval()(h) is h
