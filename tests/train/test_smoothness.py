"""The worst small change of a cell is worse than others, and costs nothing where it changes no cluster."""

import pytest
import torch
from torch.nn.functional import normalize

from mixvi.cluster.vat import RADIUS
from mixvi.module import Cells, GMVAEModule, Layout
from mixvi.module.likelihoods import NegativeBinomial
from mixvi.module.nets import Hidden
from mixvi.train._smoothness import smoothness

N, G, D, K = 40, 12, 2, 4


@pytest.fixture
def module():
    """A mixture with dropout whose components are apart."""
    module = GMVAEModule(Layout(G), NegativeBinomial, K, D, Hidden(16, 1, 0.5)).double().train()
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    module.prior.place(corners, torch.full((K, D), 0.7).double(), torch.full((K,), 0.25).double())
    torch.nn.init.normal_(module.encoder.loc.weight)
    torch.nn.init.constant_(module.encoder.log_scale.bias, -2.0)
    return module


@pytest.fixture
def cells():
    x = torch.poisson(3 * torch.rand(N, G)).double()
    return Cells(x=x, seen=x.log1p(), library=x.sum(1, keepdim=True), c=x[:, :0], y=x[:, :0], stored=x[:, :0])


def test_the_worst_change_is_worse_than_any_at_random(module, cells):
    buffers = [buffer.clone() for buffer in module.buffers()]
    found = smoothness(module, cells)
    assert all(torch.equal(*pair) for pair in zip(module.buffers(), buffers, strict=True))
    assert module.training
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    x = cells.seen
    apart = torch.cdist(x, x)
    radius = RADIUS * apart.fill_diagonal_(torch.inf).amin(1, keepdim=True)

    def log_r(seen):
        changed = cells._replace(seen=seen)
        return module.prior.log_responsibilities(module.encode(changed), changed).detach()

    p = log_r(x)
    at_random = [
        (p.exp() * (p - log_r(x + radius * normalize(torch.randn(N, G).double(), dim=-1)))).sum(-1).mean()
        for _ in range(100)
    ]
    assert found > max(at_random) > 0


def test_it_teaches_the_encoder_and_is_zero_where_cells_do_not_matter(module, cells):
    smoothness(module, cells._replace(seen=cells.seen.to_sparse_csr())).backward()
    assert module.encoder.loc.weight.grad.abs().max() > 0
    torch.nn.init.zeros_(module.encoder.loc.weight)
    torch.nn.init.zeros_(module.encoder.log_scale.weight)
    assert abs(smoothness(module, cells).item()) < 1e-12
