"""The loss of deep embedded clustering (Xie 2016, arXiv 1511.06335; with an autoencoder: Guo 2017, IDEC).

Tensors in, tensors out: z (n, d), centers (K, d), assignments (n, K).
"""

from torch import Tensor


def soft_assignment(z: Tensor, centers: Tensor) -> Tensor:
    """q_ij of cell i to center j, (n, K): Student's t with one degree of freedom, rows sum to 1 (Guo 2017, eq. 3)."""
    t = 1 / (1 + (z.unsqueeze(1) - centers).square().sum(-1))  # (n, K)
    return t / t.sum(1, keepdim=True)


def target_distribution(q: Tensor) -> Tensor:
    """p_ij, (n, K): q sharpened and set off against cluster sizes, rows sum to 1 (Guo 2017, eq. 4)."""
    weight = q.square() / q.sum(0)
    return weight / weight.sum(1, keepdim=True)


def clustering_loss(p: Tensor, q: Tensor) -> Tensor:
    """KL(p_i || q_i) of each cell, (n,) in nats; p is held fixed while q learns (Guo 2017, eq. 2)."""
    return (p * (p.log() - q.log())).sum(1)
