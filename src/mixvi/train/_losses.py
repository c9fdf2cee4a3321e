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

    ``"confusion"`` (3, l) counts labelled cells by class (`confusion`).

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
        if cells.y.shape[-1]:
            terms = {**terms, "confusion": confusion(losses["logits"], cells.y)}
        means = {
            "loss": loss,
            "reconstruction_loss": losses["reconstruction_loss"].detach().mean(),
            "kl_local": sum(terms[name] for name in kl) if isinstance(kl, dict) else kl.mean(),
            "kl_global": losses["kl_global"],
            **terms,
        }
        return loss, {name: value.detach() for name, value in means.items()}

    return objective


def confusion(log_r: Tensor, y: Tensor) -> Tensor:
    """Share of the cells that have a class and are found in it, are found in it, and have it: (3, l), by class.

    Parameters
    ----------
    log_r
        (n, K) log responsibilities. The first l components are those of the classes.
    y
        (n, l) one-hot labels. A cell without a label has zeros, and is not counted as found.
    """
    found = log_r.argmax(1, keepdim=True) == torch.arange(y.shape[1], device=y.device)
    found = found * y.sum(1, keepdim=True)
    return torch.stack([(found * y).mean(0), found.mean(0), y.mean(0)])


def classified(confusion: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Accuracy, mean F1 score of the classes and classification loss of the labelled cells, with scvi-tools' names.

    Parameters
    ----------
    confusion
        (3, l) from `confusion`.
    label
        () mean over all cells of -log r_y, which is 0 for those without a label.
    """
    right, found, have = confusion
    some = have.sum().clamp(min=torch.finfo(have.dtype).tiny)
    f1 = 2 * right / (found + have).clamp(min=torch.finfo(have.dtype).tiny)
    there = (found + have) > 0
    return {
        "accuracy": right.sum() / some,
        "f1_score": f1.sum() / there.sum().clamp(min=1),
        "classification_loss": label / some,
    }


class LossMeter:
    """Sums of loss terms over the cells of several minibatches, in fixed memory, as a CUDA graph needs it."""

    def __init__(self):
        self.shapes: dict[str, torch.Size] = {}
        self.sums = torch.zeros(0)

    def add(self, means: dict[str, Tensor], n: int) -> None:
        """Add the terms of one minibatch.

        Parameters
        ----------
        means
            Means of the terms over the cells, as an objective gives them.
        n
            Number of cells.
        """
        values = torch.cat([value.flatten() for value in means.values()])
        shapes = {name: value.shape for name, value in means.items()}
        if shapes != self.shapes:  # the terms differ from those of the last block
            self.shapes, self.sums = shapes, torch.zeros_like(values)
        self.sums.add_(values, alpha=n)

    def take(self, n: int) -> tuple[LossOutput, dict[str, Tensor]]:
        """Loss of the n cells since the last call, as of one minibatch, and means of its terms. Sums restart at 0."""
        parts = self.sums.clone().split([shape.numel() for shape in self.shapes.values()])
        sums = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        self.sums.zero_()
        block = LossOutput(
            loss=sums.pop("loss") / n,
            reconstruction_loss=sums.pop("reconstruction_loss"),
            kl_local=sums.pop("kl_local"),
            kl_global=sums.pop("kl_global") / n,
            n_obs_minibatch=n,
        )
        return block, {name: value / n for name, value in sums.items()}
