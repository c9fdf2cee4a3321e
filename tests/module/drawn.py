"""A latent, cells and likelihoods of linear decoders, in double precision."""

import numpy as np
import torch

from mixvi.module.cells import Cells, Layout
from mixvi.module.nets import Hidden

N, G, D = 6, 5, 3
LINEAR = Hidden(n_layers=0)


def make(likelihood, **kwargs):
    part = likelihood(Layout(G), D, LINEAR, **kwargs).double()
    if hasattr(part, "log_theta"):
        torch.nn.init.normal_(part.log_theta)
    return part


def cells(x):
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    return Cells(x=x, seen=x, library=torch.full((N, 1), 40.0).double(), c=x[:, :0], y=x[:, :0], stored=x[:, :0])
