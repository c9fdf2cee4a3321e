"""KL terms by drawing."""

import math

import torch

N, G, D, K, Q = 4, 5, 3, 3, 2
SAMPLES = 200_000


def scrambled(prior):
    """The prior in double precision, with every parameter away from where it starts."""
    prior = prior.double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return prior


def assert_within_five_standard_errors(samples, closed_form):
    """Samples (s, n) against values (n,)."""
    error = samples.std(0) / math.sqrt(len(samples))
    gap = (samples.mean(0) - closed_form).abs()
    assert (gap <= 5 * error).all(), (gap / error).tolist()


def total(terms):
    return sum(terms.annealed.values())


def draw(qz):
    z = qz.sample((SAMPLES,))
    return z, qz.log_prob(z).sum(-1)
