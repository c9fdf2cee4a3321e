"""Improved deep embedded clustering (IDEC) of a trained autoencoder (Guo 2017; Xie 2016, arXiv 1511.06335).

The formulas come first. They take and return tensors: z (n, d), centers (K, d), assignments (n, K).
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

from mixvi._checks import check_number, check_whole
from mixvi._warnings import warn
from mixvi.data import CellsDataset, annotation_keys, as_positions
from mixvi.model import AE, CVAE, VAE
from mixvi.model.registration import check_trainable
from mixvi.module.cells import Cells

N_STARTS = 20  # starts of k-means, as in the paper


def soft_assignment(z: Tensor, centers: Tensor) -> Tensor:
    """Soft assignment q_ij of cell i to center j: Student's t with one degree of freedom (Guo 2017, eq. 3).

    Parameters
    ----------
    z
        (n, d) latent.
    centers
        (K, d) cluster centers.

    Returns
    -------
    (n, K) probabilities; rows sum to 1.
    """
    t = 1 / (1 + (z.unsqueeze(1) - centers).square().sum(-1))  # (n, K)
    return t / t.sum(1, keepdim=True)


def target_distribution(q: Tensor) -> Tensor:
    """Target p_ij (n, K): q squared, divided by the cluster sizes; rows sum to 1 (Guo 2017, eq. 4)."""
    weight = q.square() / q.sum(0)
    return weight / weight.sum(1, keepdim=True)


def clustering_loss(p: Tensor, q: Tensor) -> Tensor:
    """KL(p_i || q_i) of each cell (Guo 2017, eq. 2).

    Parameters
    ----------
    p
        (n, K) target distribution; training does not differentiate it.
    q
        (n, K) soft assignments, above 0.

    Returns
    -------
    (n,) nats.
    """
    return (p * (p.log() - q.log())).sum(1)


class Refined:
    """A model whose latent space was trained to form clusters around centers. It is the result of `refine`.

    Attributes
    ----------
    model
        The refined copy, with the same class, AnnData and methods. ``model.save()`` saves it, and
        ``Refined(VAE.load(...), centers, history)`` restores this object.
    centers
        (K, d) cluster centers in the latent space. The largest cluster is first.
    history
        One row for each update of the target. ``clustering_loss`` and ``reconstruction_loss`` are means since the last
        update, in nats per cell. ``changed`` is the share of cells that changed cluster.
    """

    def __init__(self, model: AE | VAE | CVAE, centers: np.ndarray, history: pd.DataFrame):
        self.model, self.centers, self.history = model, centers, history

    def predict(
        self, adata: AnnData | None = None, indices: Sequence[int] | np.ndarray | None = None, soft: bool = False
    ) -> np.ndarray | pd.DataFrame:
        """Cluster of each cell; cells may be new.

        Parameters
        ----------
        adata, indices
            As in `LatentModel.get_latent_representation`.
        soft
            Return the soft assignments instead of names.

        Returns
        -------
        (n,) names; ``"0"`` is the largest cluster. With ``soft=True``, a table (n, K) whose rows sum to 1.
        """
        table = self._table(adata, indices)
        return table if soft else table.columns.to_numpy()[table.to_numpy().argmax(1)]

    def annotate(self, adata: AnnData | None = None, key_added: str = "mixvi") -> None:
        """Write latent, clusters, soft assignments and their largest value into an AnnData, as a model does.

        Parameters
        ----------
        adata
            AnnData to write into. ``None`` is the AnnData of the model.
        key_added
            Name of the columns, and prefix of the other names.
        """
        target = self.model.adata if adata is None else adata
        table = self._table(adata)
        self.model.annotate(adata, key_added)
        target.obs[key_added] = pd.Categorical.from_codes(table.to_numpy().argmax(1), table.columns)
        target.obs[f"{key_added}_confidence"] = table.max(axis=1).to_numpy()
        target.obsm[f"{key_added}_probabilities"] = table
        keys = ["/".join(place) for place in annotation_keys(target, key_added)]
        target.uns[key_added] |= {"refined_clusters": len(self.centers), "keys": keys}

    def _table(self, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None = None) -> pd.DataFrame:
        """Soft assignments (n, K), with the names of cells and clusters."""
        z = self.model.get_latent_representation(adata, indices)
        q = soft_assignment(torch.as_tensor(z), torch.as_tensor(self.centers)).numpy()
        cells = (self.model.adata if adata is None else adata).obs_names
        names = [str(k) for k in range(len(self.centers))]
        return pd.DataFrame(q, cells if indices is None else cells[as_positions(indices, len(cells))], names)

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
    """Refine the latent space of a trained model so that cells gather around K centers (IDEC).

    The decoder is trained too, so the latent keeps the information about x. K-means of the latent means gives the first
    centers, which are then parameters. The loss of a cell is the loss of the model plus ``gamma`` g KL(p || q), for g
    values of x. Here q are the soft assignments of ``soft_assignment``, and p is their ``target_distribution``. Every
    ``update_interval`` steps, p is computed again from all cells. This is g times the loss of the paper, whose
    reconstruction is a mean over values. So ``gamma=0`` is ordinary training. Training ends if fewer than ``tol`` of
    the cells change cluster between two updates.

    Parameters
    ----------
    model
        A trained AE, VAE or CVAE. It does not change; a copy is refined.
    n_clusters
        Number K of clusters, from 2 to the number of cells.
    gamma
        Weight of the clustering loss, 0 or more. The default is that of the paper, as for the next four parameters.
    max_epochs
        Largest number of passes over the cells.
    update_interval
        Steps between two updates of the target.
    tol
        Share of cells that change cluster, below which training ends.
    lr
        Learning rate, above 0.
    batch_size
        Cells in each minibatch, at least 2.
    seed
        Seed of k-means, of the order of the cells and of the draws.
    progress
        Show a progress bar.

    Returns
    -------
    The refined model with its centers and history.

    Raises
    ------
    ValueError
        If the model is a GMVAE, or if a number is not allowed.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Guo, Gao, Liu and Yin 2017, Improved deep embedded clustering with local structure preservation, IJCAI.
    """
    if not isinstance(model, AE | VAE | CVAE):
        raise ValueError(f"refine got a {type(model).__name__}; it takes a trained AE, VAE or CVAE.")
    z = model.get_latent_representation()
    check_whole("n_clusters", n_clusters, 2, len(z))
    for name, value, least in (("max_epochs", max_epochs, 1), ("batch_size", batch_size, 2)):
        check_whole(name, value, least)
    check_whole("update_interval", update_interval)
    check_number("gamma", gamma, least=0)
    check_number("tol", tol, least=0)
    check_number("lr", lr, above=0)
    check_trainable(model)
    refined = copy.copy(model)
    refined.history_ = dict(model.history_)
    refined.module = copy.deepcopy(model.module)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = KMeans(n_clusters, n_init=N_STARTS, random_state=seed).fit(z).cluster_centers_
        centers = nn.Parameter(torch.as_tensor(start, dtype=torch.float32, device=model.device))
        history = _fit(refined, centers, gamma, max_epochs, update_interval, tol, lr, batch_size, progress)
    refined.module.eval()
    latent, found = torch.as_tensor(refined.get_latent_representation()), centers.detach().cpu()
    size = torch.bincount(soft_assignment(latent, found).argmax(1), minlength=n_clusters)
    return Refined(refined, found[size.argsort(descending=True, stable=True)].numpy(), history)


def _fit(model, centers, gamma, max_epochs, update_interval, tol, lr, batch_size, progress) -> pd.DataFrame:
    """Training loop (Guo 2017, algorithm 1)."""
    module, n_cells = model.module, model.adata.n_obs
    dataset = CellsDataset(model.adata_manager, model.device, resident=False)
    optimizer = torch.optim.Adam([*module.parameters(), centers], lr=lr)
    history: list[dict[str, float]] = []
    losses: list[tuple[float, float]] = []
    p, cluster = centers.new_zeros(0), None
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
            if len(some) > 1:  # batch norm needs two cells
                yield some, cells
