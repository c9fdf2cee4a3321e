"""Latents, bounds, reconstructions and new cells from a trained model: methods of `LatentModel`."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal, overload

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_whole
from mixvi.data import as_positions, check_target, own_columns, write_blocks
from mixvi.model.conditions import sized, under
from mixvi.model.registration import registered
from mixvi.model.registry import covariate_keys
from mixvi.model.streaming import blocks, check_trained, collect
from mixvi.module.cells import Cells

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


@overload
def get_latent_representation(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    return_dist: Literal[False] = False,
) -> np.ndarray: ...


@overload
def get_latent_representation(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    *,
    return_dist: Literal[True],
) -> tuple[np.ndarray, np.ndarray]: ...


def get_latent_representation(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    return_dist: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Place of each cell in the latent space.

    Parameters
    ----------
    adata
        Cells with the genes of the model, in its order; ``None`` is the AnnData of the model.
    indices
        Rows of it; ``None`` is all. The result has their order.
    give_mean
        The posterior mean; ``False`` draws from the posterior instead.
    batch_size
        Cells at a time; it changes speed and memory only.
    return_dist
        Return mean and variance of the posterior.

    Returns
    -------
    (n, d), or two of them.
    """
    if return_dist:
        moments = collect(model,
            lambda cells: torch.stack([(qz := model.module.encode(cells)).loc, qz.scale**2], 1),
            adata, indices, batch_size, minified=True,
        )  # fmt: skip
        return moments[:, 0], moments[:, 1]
    z = (lambda q: q.loc) if give_mean else (lambda q: q.rsample())
    return collect(model, lambda cells: z(model.module.encode(cells)), adata, indices, batch_size, minified=True)


def get_elbo(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
) -> np.float64 | np.ndarray:
    """Evidence lower bound at one posterior sample, in nats a cell; higher is better.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    return_mean
        Return the mean over the cells.

    Returns
    -------
    The mean over cells, or (n,) with ``return_mean=False``.
    """

    def elbo(cells: Cells) -> Tensor:
        log_px, terms = model.module.bound(cells)
        return log_px - sum(terms.annealed.values())

    return _mean(collect(model, elbo, adata, indices, batch_size), return_mean)


def get_reconstruction_error(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
) -> dict[str, np.float64 | np.ndarray]:
    """-log p(x | z) at one posterior sample, in nats a cell; lower is better.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    return_mean
        Return the mean over the cells.

    Returns
    -------
    As in scvi-tools, ``"reconstruction_loss"``: the mean over cells, or (n,) with ``return_mean=False``.
    """
    error = collect(model, lambda cells: -model.module.bound(cells)[0], adata, indices, batch_size)
    return {"reconstruction_loss": _mean(error, return_mean)}


def get_reconstruction(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    library_size: float | None = None,
    transform_batch: str | None = None,
    batch_size: int | None = None,
    path: str | PathLike | None = None,
) -> np.ndarray | None:
    """Expected values of each cell, given its latent mean: a denoised matrix.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    library_size
        Count models: give every cell this total instead of its own, such as 1e4. Under ``"zinb"``, this is the total
        before zeros are added.
    transform_batch
        CVAE and GMVAE: expected values as if every cell came from this batch; ``None`` keeps its own.
    path
        A new ``.h5ad`` or ``.zarr``. The matrix is written there block by block as ``.X``, with ``.obs`` of the cells
        and ``.var`` of the genes, and is not returned.

    Returns
    -------
    (n, g) means of p(x | z, c): expected counts, probabilities or values, depending on the likelihood. The matrix is
    dense. If memory is short, give a ``path``; then nothing is returned.

    Raises
    ------
    ValueError
        If ``library_size`` is given and the model is not one of counts, or has size factors; if the batch is not
        known; if ``path`` exists or ends otherwise.
    """
    with_size = sized(model, library_size)
    put = None if transform_batch is None else under(model, transform_batch)

    def mean(cells: Cells) -> Tensor:
        z, others = model.module.encode(cells).loc, cells
        if put is not None:
            others = cells._replace(c=put(cells.c))
            z = model.module.prior.move(z, cells.c, others.c)
        return model.module.decode(z, with_size(others)).mean

    if path is None:
        return collect(model, mean, adata, indices, batch_size, minified=True)
    path = check_target(path)
    registered(model, adata, minified=True)
    cells = model.adata if adata is None else adata
    obs = own_columns(cells, as_positions(indices, cells.n_obs))
    skeleton = AnnData(obs=obs, var=cells.var.copy())
    write_blocks(path, skeleton, blocks(model, mean, adata, indices, batch_size, minified=True))
    return None


def sample(
    model: "LatentModel",
    n_cells: int = 100,
    component: int | str | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    seed: int | None = None,
    give_mean: bool = False,
) -> AnnData:
    """Draw new cells from the model.

    Each new cell has the library size and the conditions of a random cell of the model's AnnData. Its z is drawn from
    the prior, and its values from the likelihood.

    Parameters
    ----------
    n_cells
        Number of new cells.
    component
        GMVAE: the name of the cluster to draw from; ``None`` draws clusters by their weights.
    indices
        Rows from which library sizes and conditions are drawn, such as those of one batch; ``None`` is all.
    seed
        Seed of the draw; ``None`` uses the current state of torch.
    give_mean
        ``True`` draws z, and returns the mean of p(x | z, c). ``False`` also draws x.

    Returns
    -------
    n_cells x g. ``.obs`` has the registered covariates of the random cells. ``.X``, and the layer of the model if it
    has one, hold the values. So the model can read these cells.
    """
    check_trained(model)
    check_whole("n_cells", n_cells)
    check_whole("seed", seed, 0, none="the state of torch")
    pool = as_positions(indices, registered(model, None, minified=True).adata.n_obs)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        rows = pool[torch.randint(len(pool), (n_cells,)).numpy()]
        index = None if component is None else model._component_index(component)

        def draw(cells: Cells) -> Tensor:
            z = model._draw_latent(cells, index)
            return model.module.decode(z, cells).mean if give_mean else model.module.sample(cells, z)

        x = collect(model, draw, None, rows, minified=True)
    obs = model.adata.obs.iloc[rows][covariate_keys(model.registry_)].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    layer = model.registry_["setup_args"]["layer"]
    var = pd.DataFrame(index=model.adata.var_names.copy())
    return ad.AnnData(x, obs=obs, var=var, layers={layer: x} if layer else None)


def _mean(values: np.ndarray, wanted: bool) -> np.float64 | np.ndarray:
    return values.mean(dtype=np.float64) if wanted else values
