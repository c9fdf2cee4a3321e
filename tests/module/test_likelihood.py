"""What likelihoods share: an intercept for each condition."""

import pytest
import torch

from mixvi.module import Cells, Layout
from mixvi.module._likelihood import EDGE
from mixvi.module.likelihoods import LIKELIHOODS
from mixvi.module.nets import Hidden
from tests.model.helpers import fitted


def test_intercepts_do_not_move_the_mean_however_often_they_start(counts):
    model = fitted("CVAE", counts, train={"max_epochs": 1, "plan_kwargs": {"lr": 1e-8}})
    likelihood, before = model.module.likelihood, model.module.likelihood.head.bias.clone()
    c_mean = torch.tensor([0.5, 0.5])
    mean, effects = torch.full((30,), 1 / 30), torch.zeros(2, 30)
    likelihood.add_effects(mean, effects, c_mean)
    once = likelihood.head.bias.clone()
    likelihood.add_effects(mean, effects, c_mean)
    torch.testing.assert_close(likelihood.head.bias, once)
    assert (before - once).abs().max() < 2


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_condition_more_moves_the_mean_by_its_effect(name):
    """One step along a condition from the mean condition; the hidden layers say nothing yet."""
    g, q = 6, 2
    part = LIKELIHOODS[name](Layout(g, n_continuous=q), 3, Hidden(8, 1, 0.0)).double().eval()
    mean, effects = torch.full((g,), 1 / g).double(), 0.05 * torch.randn(q, g).double()
    effects -= effects.mean(1, keepdim=True)  # shares add up to 1
    c_mean = torch.randn(q).double()
    torch.nn.init.zeros_(part.head.weight)
    with torch.no_grad():
        part.head.bias.copy_(part.link(mean))
    part.add_effects(mean, effects, c_mean)
    x = torch.ones(q + 1, g).double()
    c = c_mean + torch.cat([torch.zeros(1, q), torch.eye(q)]).double()
    cells = Cells(x=x, seen=x, library=torch.full((q + 1, 1), 40.0).double(), c=c, y=x[:, :0], stored=x[:, :0])
    z = torch.randn(q + 1, 3).double()
    expected = mean + torch.cat([torch.zeros(1, g), effects])
    torch.testing.assert_close(part.head(part.trunk(z, c)), part.link(expected))
    if name != "zinb":  # whose zeros are added to that
        found = part(z, cells).mean
        if part.support == "count":  # shares are kept away from 0
            found, expected = found / 40, (expected + EDGE / g) / (1 + EDGE)
        torch.testing.assert_close(found, expected)


def test_counts_are_compared_as_shares():
    x = torch.tensor([[1.0, 3.0], [0.0, 5.0]])
    cells = Cells(
        x=x.to_sparse_csr(), seen=x, library=torch.tensor([[4.0], [10.0]]), c=x[:, :0], y=x[:, :0], stored=x[:, :0]
    )
    for name, expected in (("nb", torch.tensor([[0.25, 0.75], [0.0, 0.5]])), ("normal", x)):
        torch.testing.assert_close(LIKELIHOODS[name](Layout(2), 1, Hidden(4, 1, 0.0)).scaled(cells), expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_expected_seen_is_the_mean_of_what_the_encoders_read(name):
    torch.manual_seed(0)
    n, g, d = 3, 6, 2
    likelihood = LIKELIHOODS[name](Layout(g), d, Hidden(8, 1, 0.0)).eval()
    library = torch.tensor([[5.0], [50.0], [500.0]])
    cells = Cells(*(torch.zeros(n, g),) * 2, library, *(torch.zeros(n, 0),) * 3)
    z = torch.randn(n, d)
    with torch.no_grad():
        draws = torch.stack([likelihood.prepare(likelihood(z, cells).sample()) for _ in range(20_000)])
        found = likelihood.expected_seen(z, cells)
        error = draws.std(0) / 20_000**0.5
        assert ((found - draws.mean(0)).abs() < 4.5 * error + 1e-3).all()
        some = torch.tensor([True, False, True, False, False, True])
        torch.testing.assert_close(likelihood.expected_seen(z, cells, some), found[:, some])
