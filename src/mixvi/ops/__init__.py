"""Numerics without a model: sparse minibatches, log-likelihoods of counts, and functions compiled for the CPU."""
