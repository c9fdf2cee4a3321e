"""What all models share: AnnData in, AnnData out."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS, settings
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)
from scvi.dataloaders import AnnDataLoader
from scvi.model import get_max_epochs_heuristic
from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin
from scvi.train._config import merge_kwargs
from torch import Tensor

from mixvi import cluster
from mixvi.data import (
    CellsManager,
    LabelsField,
    as_positions,
    check_columns,
    check_layer,
    check_levels,
    check_support,
    choose_likelihood,
    describe,
    passes,
    stand_in,
)
from mixvi.module._elbo import Cells, Layout
from mixvi.module.likelihoods import LIKELIHOODS
from mixvi.module.priors import MixturePrior
from mixvi.train import MixviPlan

logger = logging.getLogger(__name__)

INFERENCE_BATCH_SIZE = 1024
MAX_EPOCHS, MAX_VISITS = 200, 8_000_000  # of small data; above 40,000 cells the number of cells visited is fixed
NO_LABEL = "unlabeled"  # the category of cells without a label, where the user names none


class LatentModel(UnsupervisedTrainingMixin, BaseModelClass):
    """Abstract: registration, training, getters and `annotate` for every model of the package."""

    _training_plan_cls = MixviPlan
    _ignores: ClassVar[dict[str, str]] = {}  # argument of setup_anndata -> the model that would use it

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
            The value in ``labels_key`` that means "no label".
        size_factor_key
            Column of ``.obs``: positive size factors to use in place of total counts.
        categorical_covariate_keys, continuous_covariate_keys
            Further columns of ``.obs`` to condition on (CVAE, GMVAE). Scale continuous ones to about unit variance.
        source_registry
            Used by ``load``.

        Raises
        ------
        ValueError
            If the model would ignore an argument, or a column has missing, infinite or impossible values.
        KeyError
            If a layer or column does not exist.
        """
        setup_args = {key: value for key, value in locals().items() if key not in ("cls", "adata", "source_registry")}
        if adata.is_view:
            adata._init_as_actual(adata.copy())  # what anndata itself does at the first write to a view
        cls.register_manager(cls._manager(adata, setup_args, source_registry))

    @classmethod
    def _manager(cls, adata: AnnData, setup_args: dict[str, Any], source_registry: dict | None) -> CellsManager:
        """Check the registration and carry it out; see `setup_anndata`."""
        for argument, other in cls._ignores.items():
            if setup_args[argument]:
                raise ValueError(
                    f"{cls.__name__} got {argument}={setup_args[argument]!r}, which it would ignore; "
                    f"use mixvi.{other}, or leave {argument} out."
                )
        layer, batch, labels, no_label, size_factor = (
            setup_args[key] for key in ("layer", "batch_key", "labels_key", "unlabeled_category", "size_factor_key")
        )
        for key in ("categorical_covariate_keys", "continuous_covariate_keys"):
            if isinstance(setup_args[key], str):
                raise ValueError(f"{key}={setup_args[key]!r} is one name; pass a list, [{setup_args[key]!r}].")
        categorical, continuous = (
            list(setup_args[f"{kind}_covariate_keys"] or []) for kind in ("categorical", "continuous")
        )
        if no_label is not None and labels is None:
            raise ValueError(f"unlabeled_category={no_label!r} needs labels_key, the column it stands in.")
        check_layer(adata, layer)
        check_columns(adata.obs, [key for key in (batch, labels, *categorical) if key])
        check_columns(adata.obs, continuous, numeric=True)
        check_columns(adata.obs, [size_factor] if size_factor else [], numeric=True, positive=True)

        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False)]
        if batch is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch))
        if labels is not None:
            fields.append(LabelsField(REGISTRY_KEYS.LABELS_KEY, labels, NO_LABEL if no_label is None else no_label))
        if size_factor is not None:
            fields.append(NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor))
        if categorical:
            fields.append(CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical))
        if continuous:
            fields.append(NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous))
        manager = CellsManager(fields, cls._get_setup_method_args(cls=cls, adata=adata, **setup_args))
        manager.register_fields(adata, source_registry)
        return manager

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        early_stopping: bool = False,
        plan_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> None:
        """Fit the model. ``model.history`` holds ``elbo_train``, ``elbo_validation`` and each term by its name.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; ``None`` takes 200, or fewer above 40,000 cells: 8 million cells in all.
        accelerator, devices
            Where to run, as in Lightning; ``"auto"`` takes a CUDA GPU if there is one, and never MPS by itself.
        train_size, validation_size, shuffle_set_split
            The split: nine tenths of the cells train, the others validate.
        batch_size
            Cells a minibatch.
        early_stopping
            Stop when ``elbo_validation`` no longer falls. Not before warm-up (and placing of components) is over.
        plan_kwargs
            Of `MixviPlan` and :class:`scvi.train.TrainingPlan`: ``lr``, ``weight_decay``, ``max_kl_weight`` (beta),
            ``n_epochs_kl_warmup`` (default: a tenth of the run), ``n_epochs_pretrain`` (GMVAE; default: half).
        **kwargs
            Everything else of :class:`scvi.train.Trainer` and
            :meth:`scvi.model.base.UnsupervisedTrainingMixin.train`.
        """
        self._registered(None)  # another model may have registered the same AnnData since
        batch_size = batch_size or settings.batch_size
        if max_epochs is None:
            max_epochs = get_max_epochs_heuristic(self.adata.n_obs, MAX_EPOCHS, MAX_VISITS // MAX_EPOCHS)
        steps_an_epoch = max(int((train_size or 0.9) * self.adata.n_obs / batch_size), 1)
        plan_kwargs = merge_kwargs(kwargs.pop("plan_config", None), plan_kwargs, name="plan")
        by_steps = plan_kwargs.get("n_steps_kl_warmup")
        warmup = None if by_steps or self.is_trained_ else max(max_epochs // 10, 1)
        plan_kwargs.setdefault("n_epochs_kl_warmup", warmup)
        unsettled = plan_kwargs["n_epochs_kl_warmup"] or math.ceil((by_steps or 0) / steps_an_epoch)
        if isinstance(self.module.prior, MixturePrior):
            plan_kwargs.setdefault("n_epochs_pretrain", -1 if self.module.prior.placed else max_epochs // 2)
            unsettled = max(unsettled, plan_kwargs["n_epochs_pretrain"] + 1)
        kwargs.setdefault("log_every_n_steps", steps_an_epoch)  # each entry costs as much as a step
        if train_size != 1 and validation_size != 0:
            kwargs.setdefault("check_val_every_n_epoch", 1)
        kwargs.setdefault("early_stopping_warmup_epochs", -(-unsettled // (kwargs.get("check_val_every_n_epoch") or 1)))
        self.module.train()  # scvi-tools leaves a trained module in evaluation mode, and so would train it further
        super().train(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            early_stopping=early_stopping,
            plan_kwargs=plan_kwargs,
            **kwargs,
        )

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

        values = self._collect(elbo, adata, indices, batch_size)
        return float(values.mean(dtype=np.float64)) if return_mean else values

    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
    ) -> float | np.ndarray:
        """-log p(x | z) at one posterior sample, in nats a cell; lower is better.

        Parameters are those of `get_latent_representation`.

        Returns
        -------
        The mean over cells, or (n,) with ``return_mean=False``.
        """
        values = self._collect(lambda cells: -self.module.bound(cells)[0], adata, indices, batch_size)
        return float(values.mean(dtype=np.float64)) if return_mean else values

    def get_reconstruction(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        library_size: float | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """What the model expects of each cell given its latent mean: a denoised matrix.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        library_size
            Count models: give every cell this total (1e4, say; under ``"zinb"`` before zeros are added), in place of
            its own.

        Returns
        -------
        (n, g) means of p(x | z, c): expected counts, probabilities or values, as the likelihood has it. It is dense;
        take ``indices`` in turn where memory is short.

        Raises
        ------
        ValueError
            If ``library_size`` is given and the model is not one of counts, or has size factors.
        """
        if library_size is not None and LIKELIHOODS[self.likelihood_].support != "count":
            raise ValueError(f"library_size={library_size} has no meaning under likelihood={self.likelihood_!r}.")
        if library_size is not None and self.module.layout.size_factor:
            raise ValueError(f"library_size={library_size} has no meaning beside size factors; leave it out.")

        def mean(cells: Cells) -> Tensor:
            if library_size is not None:
                cells = cells._replace(library=torch.full_like(cells.library, library_size))
            return self.module.decode(self.module.encode(cells).loc, cells).mean

        return self._collect(mean, adata, indices, batch_size)

    def sample(
        self,
        n_cells: int = 100,
        component: int | str | None = None,
        indices: Sequence[int] | None = None,
        seed: int | None = None,
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
                return self.module.sample(cells, self._draw_latent(cells, index))

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
    ) -> None:
        """Write what the model found into an AnnData. It is the one method that does.

        ========================================  ==================================================================
        ``.obsm["X_mixvi"]``                      latent means (n, d), for ``sc.pp.neighbors(use_rep="X_mixvi")``
        ``.obs["mixvi"]``                         cluster of each cell, categorical; 0 is the largest
        ``.obsm["mixvi_probabilities"]``          GMVAE: probability of each cluster (n, K), rows sum to 1
        ``.obs["mixvi_confidence"]``              GMVAE: the largest of them
        ``.obs["mixvi_entropy"]``                 GMVAE: their entropy, in nats
        ``.uns["mixvi"]``                         model, version, likelihood, settings
        ========================================  ==================================================================

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
            codes = cluster.leiden(latent, resolution, seed=settings.seed or 0)
            obs[key_added] = pd.Categorical.from_codes(codes, [str(k) for k in range(codes.max() + 1)])
        elif (table := self._probabilities(adata, None, None)) is not None:
            p = table.to_numpy()
            obs[key_added] = pd.Categorical.from_codes(p.argmax(1), table.columns)
            obs[f"{key_added}_confidence"] = p.max(1)
            obs[f"{key_added}_entropy"] = -np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0.0).sum(1)
            obsm[f"{key_added}_probabilities"] = table.rename(columns=lambda name: name.replace("/", "|"))  # for files
        check_free(target, key_added)
        for key in _written(key_added):  # of an earlier call
            target.obs.pop(key) if key in target.obs else target.obsm.pop(key, None)
        for key, values in obs.items():
            target.obs[key] = values
        for key, values in obsm.items():
            target.obsm[key] = values
        target.uns[key_added] = self._settings()

    # For the final classes.

    @abstractmethod
    def _draw_latent(self, cells: Cells, component: int | None) -> Tensor:
        """New z (n, d) for the conditions of the given cells."""

    @abstractmethod
    def _probabilities(self, adata: AnnData | None, indices, batch_size: int | None) -> pd.DataFrame | None:
        """Cluster probabilities (n, K), columns named as the clusters; ``None`` for a model without clusters."""

    @abstractmethod
    def _component_index(self, component: int | str) -> int:
        """Index of a component from the name of its cluster."""

    def _likelihood(self, likelihood: str) -> str:
        """Name of a likelihood that can describe the registered data; ``"auto"`` chooses one."""
        if likelihood != "auto" and likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood={likelihood!r} is not known; it is 'auto' or one of {sorted(LIKELIHOODS)}.")
        if self.adata is None:
            return likelihood  # loaded without data: the name was settled when the model was made
        support = self._describe(self.adata_manager)
        if likelihood == "auto":
            likelihood, why = choose_likelihood(support)
            logger.info("%s took %s", type(self).__name__, why)
        check_support(support, likelihood, LIKELIHOODS[likelihood].support)
        if self._layout().size_factor and LIKELIHOODS[likelihood].support != "count":
            raise ValueError(f"size_factor_key would be ignored under likelihood={likelihood!r}; leave it out.")
        return likelihood

    def _layout(self) -> Layout:
        """What is registered, for the module."""
        fields = {key: field["state_registry"] for key, field in self.registry_["field_registries"].items()}
        return Layout(
            n_genes=fields[REGISTRY_KEYS.X_KEY]["n_vars"],
            batch_levels=len(fields.get(REGISTRY_KEYS.BATCH_KEY, {}).get("categorical_mapping", [])),
            covariate_levels=tuple(fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("n_cats_per_key", [])),
            n_continuous=len(fields.get(REGISTRY_KEYS.CONT_COVS_KEY, {}).get("columns", [])),
            n_labels=max(len(fields.get(REGISTRY_KEYS.LABELS_KEY, {}).get("categorical_mapping", [])) - 1, 0),
            size_factor=REGISTRY_KEYS.SIZE_FACTOR_KEY in fields,
        )

    def _settings(self) -> dict[str, Any]:
        """What goes into ``.uns``: only values that any file format can hold."""
        params = self.init_params_["non_kwargs"]
        return {
            "model": type(self).__name__,
            "version": self.mixvi_version_,
            "settings": {key: value if value is not None else "None" for key, value in params.items()},
        }

    def _covariate_keys(self) -> list[str]:
        """Columns of ``.obs`` that the model reads of a cell, but for its label."""
        args = self.registry_["setup_args"]
        single = [args[key] for key in ("batch_key", "size_factor_key") if args[key]]
        keys = [*single, *(args["categorical_covariate_keys"] or []), *(args["continuous_covariate_keys"] or [])]
        return list(dict.fromkeys(keys))

    def _check_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(f"This {type(self).__name__} is not trained yet; call model.train() first.")

    def _describe(self, manager: CellsManager):
        layer = self.registry_["setup_args"]["layer"]
        where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        matrix = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        return describe(matrix, where, manager.adata.obs_names, manager.adata.var_names)

    def _registered(self, adata: AnnData | None) -> CellsManager:
        """The manager of the model's own AnnData, or one for new cells, which are not written to."""
        if adata is None and self.adata is None:
            raise ValueError(f"This {type(self).__name__} was loaded without data; pass adata=.")
        if adata is None or adata is self.adata:
            self._validate_anndata(self.adata)
            return self.adata_manager
        args = self.registry_["setup_args"]
        cells = stand_in(adata, self.get_var_names(), args, NO_LABEL)
        check_levels(cells.obs, self._levels())
        manager = self._manager(cells, args, self.registry_)
        check_support(self._describe(manager), self.likelihood_, LIKELIHOODS[self.likelihood_].support)
        return manager

    def _levels(self) -> dict[str, np.ndarray]:
        """Known categories of each categorical column the model conditions on."""
        fields = {key: field["state_registry"] for key, field in self.registry_["field_registries"].items()}
        levels = dict(fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("mappings", {}))
        if REGISTRY_KEYS.BATCH_KEY in fields:
            batch = fields[REGISTRY_KEYS.BATCH_KEY]
            levels[batch["original_key"]] = batch["categorical_mapping"]
        return levels

    def _collect(
        self,
        of: Callable[[Cells], Tensor],
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> np.ndarray:
        """What ``of`` says of each cell, (n, ...), in the order of ``indices``."""
        self._check_trained()
        manager = self._registered(adata)
        rows = as_positions(indices, manager.adata.n_obs)
        self.module.eval()
        found, seen = [], []
        with torch.inference_mode():
            for positions in passes(rows, once=manager.adata.isbacked):
                loader = AnnDataLoader(manager, indices=rows[positions], batch_size=batch_size or INFERENCE_BATCH_SIZE)
                for tensors in loader:
                    cells = self.module.read({key: value.to(self.device) for key, value in tensors.items()})
                    found.append(of(cells).cpu().numpy())
                seen.append(positions)
        return np.concatenate(found)[np.argsort(np.concatenate(seen))]


def check_free(adata: AnnData, key_added: str) -> None:
    """Make sure that what `LatentModel.annotate` writes takes the place of nothing but its own earlier results."""
    own = {"model", "version", "settings"} <= set(adata.uns.get(key_added, {}))
    taken = [key for key in _written(key_added) if key in adata.obs or key in adata.obsm]
    if not own and (taken or key_added in adata.uns):
        raise ValueError(
            f"The AnnData has {taken or key_added!r} already, and not from mixvi; nothing was written. "
            f"Choose another key_added than {key_added!r}."
        )


def _written(key: str) -> list[str]:
    return [f"X_{key}", key, f"{key}_probabilities", f"{key}_confidence", f"{key}_entropy"]
