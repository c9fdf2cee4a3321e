"""What an encoder says of a cell."""

import pytest
import torch

from mixvi.module.encoders import SCALE_FLOOR, Delta, DeltaEncoder, NormalEncoder
from mixvi.module.nets import Hidden


def test_delta_is_a_point_however_often_it_is_drawn():
    loc = torch.randn(4, 3, requires_grad=True)
    q = Delta(loc)
    assert q.rsample((5,)).shape == (5, 4, 3)
    assert (q.rsample((5,)) == loc).all()
    assert (q.scale == 0).all()
    q.rsample().sum().backward()
    assert (loc.grad == 1).all()


def test_encoders_see_the_conditions():
    x, c = torch.randn(4, 6), torch.randn(4, 2)
    for cls in (DeltaEncoder, NormalEncoder):
        encoder = cls(6, 2, 3, Hidden(8, 2, 0.0)).eval()
        assert encoder(x, c).loc.shape == (4, 3)
        assert not torch.allclose(encoder(x, c).loc, encoder(x, c + 1).loc)


@pytest.mark.parametrize("cls", [DeltaEncoder, NormalEncoder])
def test_a_posterior_is_made_again_from_its_moments(cls):
    qz = cls(6, 2, 3, Hidden(8)).eval()(torch.randn(4, 6), torch.randn(4, 2))
    again = cls.restored(qz.loc, qz.scale)
    assert type(again) is type(qz)
    torch.testing.assert_close((again.loc, again.scale), (qz.loc, qz.scale))


def test_the_scale_of_a_posterior_stays_above_its_floor():
    encoder = NormalEncoder(6, 0, 3, Hidden(8)).eval()
    torch.nn.init.constant_(encoder.log_scale.bias, -100.0)
    assert (encoder(torch.randn(4, 6), torch.zeros(4, 0)).scale >= SCALE_FLOOR).all()


def test_without_hidden_layers_an_encoder_is_linear():
    encoder = NormalEncoder(6, 0, 3, Hidden(n_layers=0)).double()
    a, b, none = torch.randn(4, 6).double(), torch.randn(4, 6).double(), torch.zeros(4, 0).double()
    loc = lambda x: encoder(x, none).loc  # noqa: E731
    torch.testing.assert_close(loc(a + b) + loc(torch.zeros_like(a)), loc(a) + loc(b))
