"""What all models share: AnnData in, AnnData out."""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData, ImplicitModificationWarning
from scvi import settings
from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin
from torch import Tensor

from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.leiden import leiden
from mixvi.data import CellsSplitter, annotation_keys, as_positions, check_free, check_target, own_columns, write_blocks
from mixvi.model import description
from mixvi.model.conditions import sized, under
from mixvi.model.description import summary
from mixvi.model.registration import check_saved, conditions_of, covariate_keys, register, registered
from mixvi.model.streaming import blocks, check_trained, collect
from mixvi.model.training import train
from mixvi.module.cells import Cells
from mixvi.train import MixturePhases, MixviPlan


class LatentModel(UnsupervisedTrainingMixin, BaseModelClass):
    """Abstract: setup, training, getters and ``annotate`` of every model of the package."""

    _ignores: ClassVar[dict[str, str]] = {}  # argument of setup_anndata -> the model that would use it
    _max_epochs, _learning_rate = 400, 1e-3  # by default; those of scvi-tools
    _training_plan_cls = MixviPlan
    _data_splitter_cls = CellsSplitter

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        source_registry: dict | None = None,
    ) -> None:
        """Tell the model where in an AnnData its data are. Nothing but scvi-tools' own ``_scvi_*`` keys is written.

        Parameters
        ----------
        adata
            n cells x g genes, dense, CSR or CSC, in memory or backed; a view becomes an object of its own.
        layer
            Layer with the values to model; ``None`` is ``.X``.
        batch_key
            Column of ``.obs``: the batch or condition of each cell (CVAE, GMVAE).
        labels_key
            Column of ``.obs``: known classes, which components of a GMVAE take over.
        unlabeled_category
            The value in ``labels_key`` that means "no label"; ``None`` is ``"unlabeled"``, which need not occur.
        size_factor_key
            Column of ``.obs``: positive size factors to use in place of total counts.
        categorical_covariate_keys, continuous_covariate_keys
            Further columns of ``.obs`` to condition on (CVAE, GMVAE). Continuous ones are standardised for the model.
        source_registry
            Used by ``load``.

        Raises
        ------
        ValueError
            If the model would ignore an argument, a column has missing, infinite or impossible values, or one of
            labels has none.
        KeyError
            If a layer or column does not exist.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"setup_anndata got {type(adata).__name__}, not an AnnData; read files with anndata first.")
        setup_args = {key: value for key, value in locals().items() if key not in ("cls", "adata", "source_registry")}
        if adata.is_view:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImplicitModificationWarning)
                adata.obs = adata.obs  # the first write to a view makes it an AnnData of its own
        cls.register_manager(register(cls, adata, setup_args, source_registry))

    @classmethod
    def load(cls, dir_path: str | PathLike, adata: AnnData | None = None, **kwargs) -> Self:
        """As :meth:`scvi.model.base.BaseModelClass.load`, but genes in another order are an error.

        Raises
        ------
        ValueError
            If there is no saved model of this class, or the AnnData does not have its genes, in its order.
        """
        path = Path(dir_path, f"{kwargs.get('prefix') or ''}model.pt")
        if path.exists():
            check_saved(cls, path, cls.load_registry(str(dir_path), kwargs.get("prefix")), adata)
        elif not kwargs.get("backup_url"):
            raise ValueError(f"There is no {path}; pass the folder that save() wrote, and its prefix if it had one.")
        model = super().load(str(dir_path), adata, **kwargs)
        check_saved(cls, path, model.registry_, model.adata)  # of what was downloaded, or lay beside the model
        return model

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool = False,
        data_path: Literal["auto", "resident", "stream"] = "auto",
        n_importance_samples: int = 1,
        plan_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        """Fit the model. ``model.history`` holds ``elbo_train``, ``elbo_validation`` and each term by its name.

        A linear AE, VAE or CVAE with ``likelihood="normal"`` has a bound without noise and is fitted to all cells at
        once, down to the optimum, with L-BFGS in double precision (`mixvi.train.fit_full_batch`). It trains in
        minibatches as every other model does if it has more than 200 million values, or if you ask for anything that
        only minibatches have: a ``batch_size``, a split, early stopping, another plan than ``max_kl_weight`` and
        ``weight_decay``.

        Ctrl-C and SIGTERM end it between two steps of minibatches (the placing of clusters of a GMVAE, half-way, is
        waited for, and a second signal acts at once): the model stays usable, and a checkpoint is left in
        ``scvi.settings.logging_dir`` that ``ckpt_path=`` goes on from, in this or another session. A fit to all cells
        at once ends after 20 iterations at most, and ``train()`` goes on from there.

        Parameters
        ----------
        max_epochs
            Passes over the training cells. ``None`` takes 400, and 100 for a GMVAE, whose learning rate is higher.
            Above 20,000 cells it is fewer, so that as many cells are visited in all.
        accelerator, devices
            Where to run, as in Lightning; ``"auto"`` takes a CUDA GPU if there is one, and never MPS by itself.
        train_size, validation_size, shuffle_set_split
            The split: nine tenths of the cells train, the others validate.
        batch_size
            Cells a minibatch; ``None`` takes 128.
        early_stopping
            Stop when ``elbo_validation`` no longer falls. Not before warm-up (and placing of components) is over.
        data_path
            ``"resident"`` puts all cells on the training device, in as few bytes as hold them, and reads a file into
            memory first; ``"stream"`` brings them block by block; ``"auto"`` is the first where they take less than
            half of the free memory, but never for what `mixvi.data.from_zarr` opened. What streams from a file (that,
            or a backed ``.h5ad``) is shuffled 64 neighbours at a time: blocks of up to 16,384 cells are made up of
            neighbours from all over the file, in a new order each epoch, and cells are shuffled within their block.
            Every cell still comes once an epoch.
        n_importance_samples
            Draws z for each cell and step; more than one trains the importance-weighted bound (Burda 2016), which is
            tighter. VAE, CVAE and GMVAE; costs as many times the decoder.
        plan_kwargs
            Of `MixviPlan` and :class:`scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``max_kl_weight`` (beta),
            ``n_epochs_kl_warmup`` (default: the first epoch), ``n_epochs_pretrain`` (GMVAE; default: half), ``compile``
            (on CUDA: capture the whole step as a graph).
        **kwargs
            Everything else of :class:`scvi.train.Trainer` and
            :meth:`scvi.model.base.UnsupervisedTrainingMixin.train`.
        """
        split = {"train_size": train_size, "validation_size": validation_size, "shuffle_set_split": shuffle_set_split}
        train(
            self, super().train, split, max_epochs, accelerator, devices, batch_size, early_stopping, data_path,
            n_importance_samples, plan_kwargs, **kwargs,
        )  # fmt: skip

    @property
    def conditions(self) -> dict[str, np.ndarray | None]:
        """Columns of ``.obs`` that the model is conditioned on, with their categories; ``None`` for continuous ones."""
        return dict(conditions_of(self.registry_))

    @property
    def summary_string(self) -> str:
        """What ``print(model)`` shows."""
        return summary(self) + super().summary_string

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
            moments = collect(self,
                lambda cells: torch.stack([(qz := self.module.encode(cells)).loc, qz.scale**2], 1),
                adata, indices, batch_size,
            )  # fmt: skip
            return moments[:, 0], moments[:, 1]
        z = (lambda q: q.loc) if give_mean else (lambda q: q.rsample())
        return collect(self, lambda cells: z(self.module.encode(cells)), adata, indices, batch_size)

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

        return _mean(collect(self, elbo, adata, indices, batch_size), return_mean)

    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
    ) -> float | np.ndarray:
        """-log p(x | z) at one posterior sample, in nats a cell; lower is better. See `get_elbo`."""
        error = collect(self, lambda cells: -self.module.bound(cells)[0], adata, indices, batch_size)
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
        with_size = sized(self, library_size)
        put = None if transform_batch is None else under(self, transform_batch)

        def mean(cells: Cells) -> Tensor:
            z, others = self.module.encode(cells).loc, cells
            if put is not None:
                others = cells._replace(c=put(cells.c))
                z = self.module.prior.move(z, cells.c, others.c)
            return self.module.decode(z, with_size(others)).mean

        if path is None:
            return collect(self, mean, adata, indices, batch_size)
        path = check_target(path)
        registered(self, adata)
        cells = self.adata if adata is None else adata
        obs = own_columns(cells, as_positions(indices, cells.n_obs))
        skeleton = AnnData(obs=obs, var=cells.var.copy())
        write_blocks(path, skeleton, blocks(self, mean, adata, indices, batch_size))

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
        check_trained(self)
        pool = as_positions(indices, registered(self, None).adata.n_obs)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            rows = pool[torch.randint(len(pool), (n_cells,)).numpy()]
            index = None if component is None else self._component_index(component)

            def draw(cells: Cells) -> Tensor:
                z = self._draw_latent(cells, index)
                return self.module.decode(z, cells).mean if give_mean else self.module.sample(cells, z)

            x = collect(self, draw, None, rows, None)
        obs = self.adata.obs.iloc[rows][covariate_keys(self.registry_)].reset_index(drop=True)
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
        check_trained(self)
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
        target.uns[key_added] = description.settings(self) | found

    # For the final classes.

    @abstractmethod
    def _phases(self, max_epochs: int, n_epochs_pretrain: int | None) -> MixturePhases | None:
        """The phases of a mixture; ``None`` for a model without one."""

    @abstractmethod
    def _found(self) -> dict[str, Any]:
        """What was not set but found, for ``.uns``."""

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
