"""When the bound on held-out cells has settled, and the learning rate after that."""

from types import SimpleNamespace

import numpy as np

from mixvi.train._length import has_settled, slow_down


def test_settled_is_a_small_gain_of_the_second_half():
    assert not has_settled([10, 6, 4], 99)  # too few
    assert not has_settled([10, 6, 4, 3], 99)
    assert not has_settled([110, 60, 20, 15.3, 12, 10], 99)  # 10 of 100
    assert has_settled([110, 60, 14.9, 14, 12, 10], 99)
    assert not has_settled([110, 60, 14.9, 14, 12, 10], 4)  # nats
    assert has_settled([110, 60, 14.9, 10, 12, 30], 99)  # the least counts
    assert has_settled([10, 11, 12, 13], 99)  # nothing was gained
    assert not has_settled([10, 11, 12, 13], 2)  # it rises
    assert not has_settled([np.nan] * 9, 99)  # no cells are held out


def test_the_rate_falls_linearly_to_zero():
    group = {"lr": 0.01}
    plan = SimpleNamespace(optimizers=lambda: SimpleNamespace(param_groups=[group]))
    rates = []
    for epoch in range(5, 9):
        slow_down(plan, epoch, 9)
        rates.append(group["lr"])
    np.testing.assert_allclose(rates, [0.01, 0.0075, 0.005, 0.0025])
    slow_down(plan, 9, -1)  # no limit
    assert group["lr"] == rates[-1]
