"""The training loss of a minibatch, and means over many minibatches."""

from collections.abc import Callable

import torch
from scvi.module.base import LossOutput
from torch import Tensor

from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells

Objective = Callable[..., tuple[Tensor, dict[str, Tensor]]]


def objective_of(module: ELBOModule) -> Objective:
    """The loss of a minibatch with its gradient, and the means of its terms over the cells, by name.

    The loss is that of `ELBOModule.losses`. Guidance adds the mean of -sum_k g_k log r_k over the cells, for weights
    g (n, K) and responsibilities r (n, K).
    """

    def objective(
        cells: Cells, n_samples: int, guide: Tensor | None = None, **loss_kwargs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses = module.losses(**module.inference(cells, n_samples), **loss_kwargs)
        loss, terms, kl = losses["loss"], losses["extra_metrics"], losses["kl_local"]
        if guide is not None and guide.shape[-1]:
            terms = {**terms, "guide": -(guide * losses["logits"]).sum(-1).mean()}  # torch 2.6 cannot trace |
            loss = loss + terms["guide"]
        means = {
            "loss": loss,
            "reconstruction_loss": losses["reconstruction_loss"].detach().mean(),
            "kl_local": sum(terms[name] for name in kl) if isinstance(kl, dict) else kl.mean(),
            "kl_global": losses["kl_global"],
            **terms,
        }
        return loss, {name: value.detach() for name, value in means.items()}

    return objective


class LossMeter:
    """Sums of loss terms over the cells of several minibatches, in fixed memory, as a CUDA graph needs it."""

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0)

    def add(self, means: dict[str, Tensor], n: int) -> None:
        """Add the terms of one minibatch.

        Parameters
        ----------
        means
            Means of the terms over the cells, scalars in nats, as an objective gives them.
        n
            Number of cells.
        """
        values = torch.stack(list(means.values()))
        if tuple(means) != self.names:  # the terms differ from those of the last block
            self.names, self.sums = tuple(means), torch.zeros_like(values)
        self.sums.add_(values, alpha=n)

    def take(self, n: int) -> tuple[LossOutput, dict[str, Tensor]]:
        """Loss of the n cells since the last call, as of one minibatch, and means of its terms. Sums restart at 0."""
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
