"""Numerics without a model: sparse minibatches, log-likelihoods of counts, and functions compiled for the CPU."""

from mixvi.ops import (
    count_log_prob,
    csr,
    expected_log1p,
    negative_binomial_cpu,
    norm_relu_dropout,
    quantile_map,
)

__all__ = [
    "count_log_prob",
    "csr",
    "expected_log1p",
    "negative_binomial_cpu",
    "norm_relu_dropout",
    "quantile_map",
]
