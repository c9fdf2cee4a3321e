"""What all models share: AnnData in, AnnData out."""

from abc import abstractmethod
from collections.abc import Sequence
from os import PathLike

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import settings
from torch import Tensor

from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.data import annotation_keys, as_positions, check_free, check_target, own_columns, write_blocks
from mixvi.model._description import DescribedModel
from mixvi.module.cells import Cells


class LatentModel(DescribedModel):
    """Abstract: getters and ``annotate``, for every model of the package, on top of what streams cells through it."""

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
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
            moments = self._collect(
                lambda cells: torch.stack([(qz := self.module.encode(cells)).loc, qz.scale**2], 1),
                adata, indices, batch_size,
            )  # fmt: skip
            return moments[:, 0], moments[:, 1]
        z = (lambda q: q.loc) if give_mean else (lambda q: q.rsample())
        return self._collect(lambda cells: z(self.module.encode(cells)), adata, indices, batch_size)

    def get_elbo(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
    ) -> float | np.ndarray:
        """Evidence lower bound at one posterior sample, in nats a cell; higher is better.

        Parameters are those of `get_latent_representation`.

        Returns
        -------
        The mean over cells, or (n,) with ``return_mean=False``.
        """

        def elbo(cells: Cells) -> Tensor:
            log_px, terms = self.module.bound(cells)
            return log_px - sum(terms.annealed.values())

        return _mean(self._collect(elbo, adata, indices, batch_size), return_mean)

    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
    ) -> float | np.ndarray:
        """-log p(x | z) at one posterior sample, in nats a cell; lower is better. See `get_elbo`."""
        error = self._collect(lambda cells: -self.module.bound(cells)[0], adata, indices, batch_size)
        return _mean(error, return_mean)

    def get_reconstruction(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        library_size: float | None = None,
        transform_batch: str | None = None,
        batch_size: int | None = None,
        path: str | PathLike | None = None,
    ) -> np.ndarray | None:
        """What the model expects of each cell given its latent mean: a denoised matrix.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        library_size
            Count models: give every cell this total (1e4, say; under ``"zinb"`` before zeros are added), in place of
            its own.
        transform_batch
            CVAE and GMVAE: the batch that every cell is to look as if it came from; ``None`` keeps its own.
        path
            A new ``.h5ad`` or ``.zarr``: write the matrix there block by block, as ``.X`` beside the ``.obs`` of the
            cells and the ``.var`` of the genes, instead of returning it.

        Returns
        -------
        (n, g) means of p(x | z, c): expected counts, probabilities or values, as the likelihood has it. It is dense:
        give a ``path`` where memory is short, and nothing is returned.

        Raises
        ------
        ValueError
            If ``library_size`` is given and the model is not one of counts, or has size factors; if the batch is not
            known; if ``path`` exists or ends otherwise.
        """
        sized = self._sized(library_size)
        put = None if transform_batch is None else self._under(transform_batch)

        def mean(cells: Cells) -> Tensor:
            z, others = self.module.encode(cells).loc, cells
            if put is not None:
                others = cells._replace(c=put(cells.c))
                z = self.module.prior.move(z, cells.c, others.c)
            return self.module.decode(z, sized(others)).mean

        if path is None:
            return self._collect(mean, adata, indices, batch_size)
        path = check_target(path)
        self._registered(adata)
        cells = self.adata if adata is None else adata
        obs = own_columns(cells, as_positions(indices, cells.n_obs))
        skeleton = AnnData(obs=obs, var=cells.var.copy())
        write_blocks(path, skeleton, self._blocks(mean, adata, indices, batch_size))

    def sample(
        self,
        n_cells: int = 100,
        component: int | str | None = None,
        indices: Sequence[int] | None = None,
        seed: int | None = None,
        give_mean: bool = False,
    ) -> AnnData:
        """Draw new cells from the model.

        A new cell takes its library size and its conditions from a cell of the model's AnnData drawn at random, its z
        from the prior, and its values from the likelihood.

        Parameters
        ----------
        n_cells
            How many.
        component
            GMVAE: the cluster to draw from, by name; ``None`` draws clusters by their weights.
        indices
            Rows whose library sizes and conditions may be taken, those of one batch, say; ``None`` is all.
        seed
            Of the draw; ``None`` goes on with torch's own state.
        give_mean
            Draw z alone, and give the mean of x at it.

        Returns
        -------
        n_cells x g, with the registered covariates of the drawn cells in ``.obs``, and the values in ``.X`` and in the
        layer of the model, if it has one: ready to be given back to it.
        """
        self._check_trained()
        pool = as_positions(indices, self._registered(None).adata.n_obs)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            rows = pool[torch.randint(len(pool), (n_cells,)).numpy()]
            index = None if component is None else self._component_index(component)

            def draw(cells: Cells) -> Tensor:
                z = self._draw_latent(cells, index)
                return self.module.decode(z, cells).mean if give_mean else self.module.sample(cells, z)

            x = self._collect(draw, None, rows, None)
        obs = self.adata.obs.iloc[rows][self._covariate_keys()].reset_index(drop=True)
        obs.index = obs.index.astype(str)
        layer = self.registry_["setup_args"]["layer"]
        var = pd.DataFrame(index=self.adata.var_names.copy())
        return ad.AnnData(x, obs=obs, var=var, layers={layer: x} if layer else None)

    def annotate(
        self,
        adata: AnnData | None = None,
        key_added: str = "mixvi",
        clustering: str | None = None,
        resolution: float = 1.0,
        n_clusters: int | None = None,
    ) -> None:
        """Write what the model found into an AnnData. It is the one method that does.

        ========================================  ==================================================================
        ``.obsm["X_mixvi"]``                      latent means (n, d), for ``sc.pp.neighbors(use_rep="X_mixvi")``
        ``.obs["mixvi"]``                         cluster of each cell, categorical; 0 is the largest
        ``.obsm["mixvi_probabilities"]``          GMVAE: probability of each cluster (n, K), rows sum to 1
        ``.obs["mixvi_confidence"]``              GMVAE: the largest of them
        ``.obs["mixvi_entropy"]``                 GMVAE: their entropy, in nats
        ``.varm["PCs_mixvi"]``                    linear AE and VAE: principal axes (g, d)
        ``.uns["mixvi"]``                         model, version, settings, setup, likelihood; GMVAE: clusters,
                                                  temperature, ``"tree"`` and ``"markers"``, the best 50 of each cluster
        ========================================  ==================================================================

        In names of probabilities ``/`` becomes ``|``, as files cannot hold it.

        Parameters
        ----------
        adata
            Where to write; ``None`` is the AnnData of the model. New cells need the model's genes and covariates.
        key_added
            The ``mixvi`` in the names above.
        clustering
            ``"leiden"`` clusters the latent neighbour graph with scanpy. ``None``: a GMVAE writes its own clusters,
            other models write none.
        resolution
            Of Leiden.
        n_clusters
            GMVAE: cut the tree of clusters into so many; ``None`` takes those of ``predict()``.

        Raises
        ------
        ValueError
            If a column to be written exists and is not mixvi's own.
        """
        if clustering not in (None, "leiden"):
            raise ValueError(f"clustering={clustering!r} is not known; it is None or 'leiden'.")
        self._check_trained()
        target = self.adata if adata is None else adata
        latent = self.get_latent_representation(adata)
        obs, obsm = {}, {f"X_{key_added}": latent}
        if clustering == "leiden":
            codes = leiden(shared_neighbors(latent), resolution, settings.seed or 0)
            obs[key_added] = pd.Categorical.from_codes(codes, [str(k) for k in range(codes.max() + 1)])
        elif (table := self._probabilities(adata, None, None, n_clusters)) is not None:
            p = table.to_numpy()
            obs[key_added] = pd.Categorical.from_codes(p.argmax(1), table.columns)
            obs[f"{key_added}_confidence"] = p.max(1)
            obs[f"{key_added}_entropy"] = -np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0.0).sum(1)
            obsm[f"{key_added}_probabilities"] = table.rename(columns=lambda name: name.replace("/", "|"))  # for files
        check_free(target, key_added)
        for attribute, key in annotation_keys(target, key_added):  # of an earlier call
            del getattr(target, attribute)[key]
        for key, values in obs.items():
            target.obs[key] = values
        for key, values in obsm.items():
            target.obsm[key] = values
        if (axes := self._axes()) is not None:
            target.varm[f"PCs_{key_added}"] = axes
        found = {"leiden_resolution": resolution} if clustering else self._tables(n_clusters)
        target.uns[key_added] = self._settings() | found

    # For the final classes.

    @abstractmethod
    def _draw_latent(self, cells: Cells, component: int | None) -> Tensor:
        """New z (n, d) for the conditions of the given cells."""

    @abstractmethod
    def _probabilities(
        self, adata: AnnData | None, indices, batch_size: int | None, n_clusters: int | None
    ) -> pd.DataFrame | None:
        """Cluster probabilities (n, K), columns named as the clusters; ``None`` for a model without clusters."""

    @abstractmethod
    def _tables(self, n_clusters: int | None) -> dict[str, pd.DataFrame]:
        """Tables for ``.uns``, by name."""

    @abstractmethod
    def _axes(self) -> np.ndarray | None:
        """Principal axes (g, d) of a linear model; ``None`` for others."""

    @abstractmethod
    def _component_index(self, component: int | str) -> int:
        """Index of a component from the name of its cluster."""


def _mean(values: np.ndarray, wanted: bool) -> float | np.ndarray:
    return float(values.mean(dtype=np.float64)) if wanted else values
