"""Deep embedded clustering of a trained autoencoder, its decoder kept (Guo 2017, IDEC; Xie 2016, arXiv 1511.06335).

The maths stands first, tensors in, tensors out: z (n, d), centers (K, d), assignments (n, K).
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.utils import track
from sklearn.cluster import KMeans
from torch import Tensor, nn

from mixvi._warnings import warn
from mixvi.data import CellsDataset, as_positions
from mixvi.model import AE, CVAE, VAE
from mixvi.module.cells import Cells

N_STARTS = 20  # of k-means, as in the paper


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


class Refined:
    """A model whose latent space was drawn together around cluster centers. `refine` makes it.

    Attributes
    ----------
    model
        The refined copy: same class, same AnnData, every method it had. ``model.save()`` keeps it, and
        ``Refined(VAE.load(...), centers, history)`` puts it together again.
    centers
        (K, d) in its latent space, the largest cluster first.
    history
        By update of the target: ``clustering_loss`` and ``reconstruction_loss`` (nats a cell, means since the last)
        and ``changed``, the share of cells that changed cluster.
    """

    def __init__(self, model: AE | VAE | CVAE, centers: np.ndarray, history: pd.DataFrame):
        self.model, self.centers, self.history = model, centers, history

    def predict(
        self, adata: AnnData | None = None, indices: Sequence[int] | None = None, soft: bool = False
    ) -> np.ndarray | pd.DataFrame:
        """Cluster of each cell, new ones too.

        Parameters
        ----------
        adata, indices
            As in `get_latent_representation`.
        soft
            Return the soft assignment q instead.

        Returns
        -------
        (n,) names, ``"0"`` the largest cluster; with ``soft=True`` a table (n, K), rows summing to 1.
        """
        z = self.model.get_latent_representation(adata, indices)
        q = soft_assignment(torch.as_tensor(z), torch.as_tensor(self.centers)).numpy()
        cells = (self.model.adata if adata is None else adata).obs_names
        names = [str(k) for k in range(len(self.centers))]
        table = pd.DataFrame(q, cells if indices is None else cells[as_positions(indices, len(cells))], names)
        return table if soft else table.columns.to_numpy()[q.argmax(1)]

    def annotate(self, adata: AnnData | None = None, key_added: str = "mixvi") -> None:
        """Write latent space, clusters, soft assignments and their largest, as ``annotate`` of a model does."""
        target = self.model.adata if adata is None else adata
        table = self.predict(adata, soft=True)
        self.model.annotate(adata, key_added)
        target.obs[key_added] = pd.Categorical.from_codes(table.to_numpy().argmax(1), table.columns)
        target.obs[f"{key_added}_confidence"] = table.max(axis=1).to_numpy()
        target.obsm[f"{key_added}_probabilities"] = table
        target.uns[key_added]["refined_clusters"] = len(self.centers)

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        return f"Refined {kind}: {len(self.centers)} clusters after {len(self.history)} updates of the target."


def refine(
    model: AE | VAE | CVAE,
    n_clusters: int,
    *,
    gamma: float = 0.1,
    max_epochs: int = 200,
    update_interval: int = 140,
    tol: float = 0.001,
    lr: float = 1e-3,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> Refined:
    """Draw the latent space of a trained model together around K centers, while the decoder keeps it honest (IDEC).

    Centers start as k-means of the latent means and are parameters from there on. The loss of a cell is the model's
    own, plus ``gamma`` times KL(p || q) for each value of x: q are the soft assignments of `soft_assignment`, and p
    their `target_distribution`, which is computed anew from all cells every ``update_interval`` steps. That is the
    loss of the paper, whose reconstruction is a mean over values, times the number of values: ``gamma=0`` trains the
    model as ``train`` would. It ends when fewer than ``tol`` of the cells change cluster from one target to the next.

    Parameters
    ----------
    model
        A trained AE, VAE or CVAE. It stays as it is; a copy is refined.
    n_clusters
        K, at least 2.
    gamma, update_interval, tol, lr, batch_size
        As in the paper, with its values.
    max_epochs
        Passes over the cells, at most.
    seed
        Of k-means, of the order of cells and of the draws.
    progress
        Show a progress bar.

    Returns
    -------
    The refined model with its centers and history.

    Raises
    ------
    ValueError
        If the model has clusters of its own, or ``n_clusters`` is not between 2 and the number of cells.
    RuntimeError
        If it is not trained.

    References
    ----------
    Guo, Gao, Liu and Yin 2017, Improved deep embedded clustering with local structure preservation, IJCAI.
    """
    if not isinstance(model, AE | VAE | CVAE):
        raise ValueError(f"refine got a {type(model).__name__}; it takes a trained AE, VAE or CVAE.")
    z = model.get_latent_representation()
    if not isinstance(n_clusters, int | np.integer) or not 2 <= n_clusters <= len(z):
        raise ValueError(
            f"n_clusters={n_clusters!r}; it must be a whole number from 2 to {len(z)}, the number of cells."
        )
    whole = {"max_epochs": max_epochs, "update_interval": update_interval, "batch_size": batch_size - 1}
    if min(whole.values()) < 1 or not 0 <= gamma < np.inf or not lr > 0:
        raise ValueError(
            f"gamma={gamma}, max_epochs={max_epochs}, update_interval={update_interval}, lr={lr}, "
            f"batch_size={batch_size}: gamma must be 0 or more, lr more than 0, batch_size at least 2, the others 1."
        )
    refined = copy.copy(model)
    refined.history_ = dict(model.history_)
    refined.module = copy.deepcopy(model.module)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = KMeans(n_clusters, n_init=N_STARTS, random_state=seed).fit(z).cluster_centers_
        centers = nn.Parameter(torch.as_tensor(start, dtype=torch.float32, device=model.device))
        history = _fit(refined, centers, gamma, max_epochs, update_interval, tol, lr, batch_size, progress)
    refined.module.eval()
    z = torch.as_tensor(refined.get_latent_representation())
    found = centers.detach().cpu()
    size = torch.bincount(soft_assignment(z, found).argmax(1), minlength=n_clusters)
    return Refined(refined, found[size.argsort(descending=True, stable=True)].numpy(), history)


def _fit(model, centers, gamma, max_epochs, update_interval, tol, lr, batch_size, progress) -> pd.DataFrame:
    """The loop of Guo 2017, algorithm 1."""
    module, n_cells = model.module, model.adata.n_obs
    dataset = CellsDataset(model.adata_manager, model.device, resident=False)
    optimizer = torch.optim.Adam([*module.parameters(), centers], lr=lr)
    history, losses, cluster, p = [], [], None, None
    for _ in track(range(max_epochs), description="refining", disable=not progress):
        for rows, cells in _minibatches(module, dataset, n_cells, batch_size):
            if len(losses) % update_interval == 0:
                q = soft_assignment(torch.as_tensor(model.get_latent_representation()).to(centers), centers).detach()
                p, before, cluster = target_distribution(q), cluster, q.argmax(1)
                changed = 1.0 if before is None else float((cluster != before).float().mean())
                since = np.mean(losses[-update_interval:], axis=0) if losses else (np.nan, np.nan)
                history.append({"reconstruction_loss": since[0], "clustering_loss": since[1], "changed": changed})
                if changed < tol:
                    return pd.DataFrame(history)
                module.train()
            found = module.inference(cells)
            plain = module.loss({}, found, {}).loss
            pull = clustering_loss(p[rows], soft_assignment(found["qz"].loc, centers)).mean()
            optimizer.zero_grad()
            (plain + gamma * module.layout.n_genes * pull).backward()
            optimizer.step()
            losses.append((plain.item(), pull.item()))
    warn(f"{max_epochs} epochs were over before clusters settled: raise max_epochs.")
    return pd.DataFrame(history)


def _minibatches(module, dataset: CellsDataset, n_cells: int, batch_size: int) -> Iterator[tuple[Tensor, Cells]]:
    order, size = torch.randperm(n_cells).numpy(), dataset.block_size(batch_size)
    for start in range(0, n_cells, size):
        block = dataset[order[start : start + size]]
        rows = block[REGISTRY_KEYS.INDICES_KEY].ravel().split(batch_size)
        for some, cells in zip(rows, module.read(block).split(batch_size), strict=True):
            if len(some) > 1:  # batch norm has nothing to say of one cell
                yield some, cells
