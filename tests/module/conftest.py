"""A minibatch for modules; a posterior and its cells for priors."""

import pytest
import torch
from scvi import REGISTRY_KEYS
from torch.distributions import Normal

from mixvi.module import Cells
from tests.module import bounds, monte_carlo


@pytest.fixture
def tensors():
    n, g = bounds.N, bounds.G
    return {
        REGISTRY_KEYS.X_KEY: torch.poisson(torch.full((n, g), 4.0)).double(),
        REGISTRY_KEYS.BATCH_KEY: torch.arange(n).unsqueeze(-1) % 2,
        REGISTRY_KEYS.CAT_COVS_KEY: torch.stack([torch.arange(n) % 3, torch.arange(n) % 2], -1),
        REGISTRY_KEYS.CONT_COVS_KEY: torch.randn(n, 2),
        REGISTRY_KEYS.LABELS_KEY: torch.tensor([0, 1, 2, 3, 3, 0, 1, 2]).unsqueeze(-1),  # 3 is "no label"
    }


@pytest.fixture
def qz():
    n, d = monte_carlo.N, monte_carlo.D
    return Normal(torch.randn(n, d).double(), torch.rand(n, d).double() + 0.3)


@pytest.fixture
def cells():
    x = torch.rand(monte_carlo.N, monte_carlo.G).double()
    c = torch.randn(monte_carlo.N, monte_carlo.Q).double()
    return Cells(x=x, seen=x, library=x[:, :1], c=c, y=x[:, :0], stored=x[:, :0])
