"""Numerics without a model: sparse minibatches, log-probabilities of counts, and what is compiled for the CPU."""
