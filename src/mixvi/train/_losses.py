"""What minibatches lose, and the mean of that over many of them."""

from collections.abc import Callable

import torch
from scvi.module.base import LossOutput
from torch import Tensor

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells

Objective = Callable[..., tuple[Tensor, dict[str, Tensor]]]


def objective_of(module: ELBOModule) -> Objective:
    """`ELBOModule.losses` as the loss, which alone has a gradient, and the means over cells of its parts, by name."""

    def objective(cells: Cells, n_samples: int, **loss_kwargs) -> tuple[Tensor, dict[str, Tensor]]:
        losses = module.losses(cells, n_samples, **loss_kwargs)
        terms, kl = losses["extra_metrics"], losses["kl_local"]
        means = {
            "loss": losses["loss"],
            "reconstruction_loss": losses["reconstruction_loss"].detach().mean(),
            "kl_local": sum(terms[name] for name in kl) if isinstance(kl, dict) else kl.mean(),
            "kl_global": losses["kl_global"],
            **terms,
        }
        return losses["loss"], {name: value.detach() for name, value in means.items()}

    return objective


class Lost:
    """Sums over the cells of several minibatches. They stay where they are, so that a CUDA graph can add to them."""

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None

    def add(self, means: dict[str, Tensor], n: int) -> None:
        """What one more minibatch of n cells lost, as an objective gives it."""
        values = torch.stack(list(means.values()))
        if tuple(means) != self.names:  # a term has come, or gone, since the last block
            self.names, self.sums = tuple(means), torch.zeros_like(values)
        self.sums.add_(values, alpha=n)

    def take(self, n: int) -> tuple[LossOutput, dict[str, Tensor]]:
        """What n cells lost since the last time, as if they had been one minibatch, and the means of its terms."""
        sums = dict(zip(self.names, self.sums.clone(), strict=True))
        self.sums.zero_()
        block = LossOutput(
            loss=sums.pop("loss") / n,
            reconstruction_loss=sums.pop("reconstruction_loss"),
            kl_local=sums.pop("kl_local"),
            kl_global=sums.pop("kl_global") / n,
            n_obs_minibatch=n,
        )
        return block, {name: value / n for name, value in sums.items()}
