"""Small modules in double precision, and their loss."""

import torch

from mixvi.module.nets import Hidden

N, G, D = 8, 6, 3
HIDDEN = Hidden(16, 1, 0.0)


def ready(module):
    return module.double().eval()


def copy_parts(source, target, *names):
    for name in names:
        getattr(target, name).load_state_dict(getattr(source, name).state_dict())


def negative_elbo(module, tensors, seed=0):
    """Loss of a minibatch at a fixed posterior sample."""
    torch.manual_seed(seed)
    return module(tensors)[2].loss
