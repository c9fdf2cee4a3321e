"""Hidden layers against torch's own, with conditions and without."""

import pytest
import torch
from scvi.nn import Embedding
from torch import nn

from mixvi.module.nets import Hidden, Layer, Trunk

N, G, Q = 7, 6, 2


@pytest.fixture
def x():
    return torch.poisson(torch.rand(N, G)).double()


@pytest.fixture
def c():
    return torch.randn(N, Q).double()


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_linear_on_input_and_conditions_then_norm_then_relu(x, c, training):
    layer = Layer(G, Q, 5, dropout_rate=0.0).double().train(training)
    plain = nn.Sequential(nn.Linear(G + Q, 5), nn.BatchNorm1d(5, eps=0.001), nn.ReLU()).double().train(training)
    with torch.no_grad():
        plain[0].weight.copy_(torch.cat([layer.weight.t(), layer.condition], 1))
        plain[0].bias.copy_(layer.bias)
    torch.testing.assert_close(layer(x, c), plain(torch.cat([x, c], 1)))
    torch.testing.assert_close(layer(x.to_sparse_csr(), c), plain(torch.cat([x, c], 1)))


def test_a_layer_that_discounts_does_not_see_what_conditions_add(x, c):
    layer = Layer(G, Q, 5, dropout_rate=0.0, discounts=True).double().eval()
    layer.effects.copy_(torch.randn(Q, G))
    layer.c_mean.copy_(torch.randn(Q))
    assert layer.condition is None
    moved = x + (c - layer.c_mean) @ layer.effects
    torch.testing.assert_close(layer(moved, c), layer(x, layer.c_mean.expand(N, Q)))
    assert not torch.allclose(layer(x, c), layer(x, layer.c_mean.expand(N, Q)))


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_the_output_ends_with_the_conditions(x, c, n_layers):
    trunk = Trunk(G, Q, Hidden(5, n_layers, 0.0)).double().eval()
    out = trunk(x, c)
    assert trunk.is_linear == (n_layers == 0)
    assert out.shape == (N, trunk.n_out)
    torch.testing.assert_close(out[:, -Q:], c)
    if trunk.is_linear:
        torch.testing.assert_close(out[:, :G], x)
    several = trunk(torch.stack([x, 2 * x]), c)  # draws of the latent share the conditions of their cell
    torch.testing.assert_close(several[0], out)
    torch.testing.assert_close(several[1], trunk(2 * x, c))


@pytest.mark.parametrize("discounts", [True, False])
def test_a_bare_copy_learns_for_the_trunk_and_conditions_take_no_part(x, c, discounts):
    trunk = Trunk(G, Q, Hidden(5, 2, 0.5), discounts).double().eval()
    bare = trunk.bare().double().eval()
    torch.testing.assert_close(bare(x), trunk(x, torch.zeros(N, Q).double())[:, :5])
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.add_(0.1)
    trunk.follow(bare.state_dict())
    torch.testing.assert_close(trunk(x, c)[:, :5], bare(x))


def test_batches_are_placed_by_their_effects():
    """With as many axes as batches the places give the effects exactly; with fewer, the nearest of that rank."""
    torch.manual_seed(0)
    effects = torch.randn(7, 20)  # of 5 batches and 2 further conditions
    for n_axes, error in ((8, 0.0), (5, 0.0), (2, torch.linalg.svdvals(effects[:5])[2:].square().sum().sqrt().item())):
        trunk = Trunk(3, 7, Hidden(16, 2, batches=Embedding(5, n_axes)))
        of_axes = trunk.place(effects)
        assert of_axes.shape == (n_axes + 2, 20)
        found = trunk.placed(torch.eye(7)) @ of_axes
        assert torch.linalg.matrix_norm(found - effects).item() == pytest.approx(error, abs=1e-4)
        assert trunk(torch.randn(4, 3), torch.eye(7)[:4]).shape == (4, 16 + n_axes + 2) == (4, trunk.n_out)
    assert "batches.weight" not in Trunk(3, 0, Hidden(batches=Embedding(5, 2))).state_dict()
