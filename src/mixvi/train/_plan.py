"""The training plan: scvi-tools' own, with a warm-up tied to the run and a phase that places mixture components."""

import logging

import torch
from scvi import settings
from scvi.train import TrainingPlan
from torch import Tensor

from mixvi.cluster import partition
from mixvi.module._elbo import ELBOModule
from mixvi.module.priors import MixturePrior

logger = logging.getLogger(__name__)

MAX_CELLS_TO_PLACE = 50_000  # enough to see clusters of a few dozen cells, and a neighbour graph in seconds


class MixviPlan(TrainingPlan):
    """scvi-tools' plan, with one phase for models whose prior is a mixture.

    Until ``n_epochs_pretrain`` the components stay on top of each other, so that the model is the VAE it contains.
    Then the latents of the training cells are partitioned (`mixvi.cluster.partition`), each component takes the mean,
    spread and share of one part, and everything is trained jointly. Labelled cells keep their own components.

    Parameters
    ----------
    module
        The module to train.
    n_components
        Number of components to place; ``None`` lets the partition decide.
    n_epochs_pretrain
        Epochs before the components are placed; 0 places them in the latent space of the untrained encoder.
    **plan_kwargs
        Passed to :class:`scvi.train.TrainingPlan`.
    """

    def __init__(self, module: ELBOModule, *, n_components: int | None = None, n_epochs_pretrain: int = 0, **plan_kwargs):
        super().__init__(module, **plan_kwargs)
        self.n_components = n_components
        self.n_epochs_pretrain = n_epochs_pretrain
        self.places = isinstance(module.prior, MixturePrior)

    def on_train_start(self) -> None:
        """Hold the components still; the optimizer knows them already."""
        if self.places and self.current_epoch <= self.n_epochs_pretrain:
            self._hold(True)

    def on_train_epoch_start(self) -> None:
        """Place the components once the latent space has taken shape."""
        if self.places and self.current_epoch == self.n_epochs_pretrain:
            self._place()
            self._hold(False)

    def _hold(self, still: bool) -> None:
        for parameter in self.module.prior.component_parameters():
            parameter.requires_grad_(not still)

    def _place(self) -> None:
        z, y = self._latents()
        part = partition(z.numpy(), self.n_components, labels=y.numpy(), seed=settings.seed or 0)
        part = torch.as_tensor(part)
        n_parts = int(part.max()) + 1
        room = len(self.module.prior.active)
        if n_parts > room:
            logger.warning(f"{n_parts} parts were found, and there is room for {room}: the smallest are left out.")
        parts = [z[part == k] for k in range(min(n_parts, room))]
        scale = torch.stack([_spread(cells, z) for cells in parts])
        self.module.prior.place(
            torch.stack([cells.mean(0) for cells in parts]).to(self.device),
            scale.to(self.device),
            torch.tensor([len(cells) / len(z) for cells in parts], device=self.device),
        )

    @torch.inference_mode()
    def _latents(self) -> tuple[Tensor, Tensor]:
        """Posterior means (n, d) and label indices (n,), -1 where unlabelled, of shuffled training cells."""
        self.module.eval()
        zs, ys, seen = [], [], 0
        for tensors in self.trainer.datamodule.train_dataloader():
            cells = self.module.read({key: value.to(self.device) for key, value in tensors.items()})
            zs.append(self.module.encode(cells).loc.cpu())
            ys.append(torch.cat([cells.y, 0.5 * torch.ones_like(cells.x[:, :1])], -1).argmax(-1).cpu())
            seen += len(zs[-1])
            if seen >= MAX_CELLS_TO_PLACE:
                break
        self.module.train()
        y = torch.cat(ys)
        return torch.cat(zs), torch.where(y == self.module.layout.n_labels, -1, y)


def _spread(cells: Tensor, z: Tensor) -> Tensor:
    """Standard deviation (d,) of a part, kept from 0 where a part has few cells by a share of all cells' spread."""
    centred = cells - cells.mean(0)
    return ((centred**2).sum(0) + 0.01 * z.var(0)).div(len(cells)).sqrt()
