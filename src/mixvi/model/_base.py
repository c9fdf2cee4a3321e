"""The base class of all models: AnnData in, AnnData out."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, ClassVar, Literal, NoReturn, Self, override

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning
from scvi.data import AnnDataManager
from scvi.model.base import BaseMinifiedModeModelClass, UnsupervisedTrainingMixin
from torch import Tensor

from mixvi._upstream import forget_with_model
from mixvi.data import CellsSplitter
from mixvi.model import annotation, differential, expression, getters, minification, query, saving, store, training
from mixvi.model._arguments import NO_DATAMODULE, NO_MUDATA, device_of
from mixvi.model._novelty import Novelty
from mixvi.model._predict import Encoded
from mixvi.model.description import summary
from mixvi.model.registration import adopt, register
from mixvi.model.registry import conditions_of
from mixvi.module import Cells, ELBOModule
from mixvi.train import MixturePhases, MixviPlan


class LatentModel(UnsupervisedTrainingMixin, BaseMinifiedModeModelClass):
    """Abstract: setup, training, getters and ``annotate`` of every model of the package."""

    _ignores: ClassVar[dict[str, str]] = {}  # argument of setup_anndata -> the model that would use it
    _max_epochs, _learning_rate = 400, 1e-3  # by default; those of scvi-tools
    _training_plan_cls, _data_splitter_cls = MixviPlan, CellsSplitter
    module: ELBOModule
    held_out_: dict[str, np.ndarray] | None = None  # what p-values need of the validation cells
    empty_levels_: dict[str, list] | None = None  # of the conditions, without cells in training
    unseen_: list[str] | None = None  # genes that the cells of a mapped model lack; None for other models
    known_levels_: np.ndarray | None = None  # (q,) conditions that the reference of a mapped model knows
    gene_key_: str | None = None  # column of .var with their names

    def __init__(self, adata: AnnData | None = None, registry: dict | None = None):
        if adata is None and (registry or {}).get("setup_method_name") == "setup_datamodule":
            raise ValueError(f"The registry is that of a data module, and {NO_DATAMODULE}")
        super().__init__(adata, registry)
        forget_with_model(self)

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
        if type(adata).__name__ == "MuData":
            cls.setup_mudata(adata)
        if not issubclass(type(adata), AnnData):  # scvi-tools' adapter of an AnnCollection says that it is an instance
            raise TypeError(
                f"setup_anndata got {type(adata).__name__}, not an AnnData; read files with anndata, and join several "
                "by anndata.concat, or by mixvi.data.from_zarr if they are zarr stores."
            )
        setup_args = {key: value for key, value in locals().items() if key not in ("cls", "adata", "source_registry")}
        if adata.is_view:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImplicitModificationWarning)
                adata.obs = adata.obs  # the first write to a view makes it an AnnData of its own
        adopt(cls, register(cls, adata, setup_args, source_registry))

    @classmethod
    @override
    def setup_annbatch(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(f"setup_annbatch() makes a data module, and {NO_DATAMODULE}")

    @classmethod
    def setup_mudata(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Point to `setup_anndata`.

        Parameters
        ----------
        *args, **kwargs
            Of a model of scvi-tools that reads a MuData.
        """
        raise TypeError(NO_MUDATA)

    @classmethod
    def load(
        cls,
        dir_path: str | PathLike,
        adata: AnnData | Literal[False] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
    ) -> Self:
        """Load a model that `save` wrote.

        Parameters
        ----------
        dir_path
            Folder that `save` was given.
        adata
            Cells with the genes of the model, in its order. ``None`` takes those saved beside the model, if there are
            any; ``False`` loads the model without cells. Cells whose label is missing or unknown are unlabelled.
        accelerator, device
            Where the weights go, as in `train`.
        prefix
            As in `save`.
        backup_url
            Where to download the file from if it is not in the folder.

        Raises
        ------
        ValueError
            If there is no file; if it is damaged, of another class or from a later version; if the AnnData does not
            have the genes of the model, in its order, or has a category that the model was not trained on.
        """
        where = device_of(accelerator, device if isinstance(device, str) else [device])
        return saving.load(cls, dir_path, adata, where, prefix, backup_url)

    @staticmethod
    def load_registry(dir_path: str | PathLike, prefix: str | None = None) -> dict[str, Any]:
        """What `setup_anndata` registered for a saved model.

        Parameters
        ----------
        dir_path, prefix
            As in `load`.
        """
        return saving.load_registry(dir_path, prefix)

    @classmethod
    def view_setup_args(cls, dir_path: str | PathLike, prefix: str | None = None) -> None:
        """Print the arguments of `setup_anndata` of a saved model.

        Parameters
        ----------
        dir_path, prefix
            As in `load`.
        """
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path, prefix))

    @classmethod
    def convert_legacy_save(
        cls,
        dir_path: str | PathLike,
        output_dir_path: str | PathLike,
        overwrite: bool = False,
        prefix: str | None = None,
    ) -> None:
        """Convert a model that an earlier mixvi saved in the pickled format of scvi-tools.

        **Reading such a file can run any code that is in it.** Convert only files from people that you trust.

        Parameters
        ----------
        dir_path, prefix
            As in `load`.
        output_dir_path
            Folder for the new one; it may be the same one with ``overwrite=True``.
        overwrite
            Replace a model in a folder that exists.

        Raises
        ------
        ValueError
            If the new folder exists and ``overwrite`` is ``False``.
        """
        saving.convert(dir_path, output_dir_path, overwrite, prefix)

    @property
    def conditions(self) -> dict[str, np.ndarray | None]:
        """Columns of ``.obs`` that the model is conditioned on, with their categories; ``None`` for continuous ones."""
        return dict(conditions_of(self.registry_))

    @property
    def summary_string(self) -> str:
        """What ``print(model)`` shows."""
        return summary(self) + super().summary_string

    get_latent_representation = getters.get_latent_representation
    get_elbo = getters.get_elbo
    get_reconstruction_error = getters.get_reconstruction_error
    get_reconstruction = getters.get_reconstruction
    sample = getters.sample
    get_normalized_expression = expression.get_normalized_expression
    posterior_predictive_sample = expression.posterior_predictive_sample
    get_likelihood_parameters = expression.get_likelihood_parameters
    get_feature_correlation_matrix = expression.get_feature_correlation_matrix
    get_latent_library_size = expression.get_latent_library_size
    get_aggregated_posterior = differential.get_aggregated_posterior
    differential_expression = differential.differential_expression
    differential_abundance = differential.differential_abundance
    annotate = annotation.annotate
    annotate_store = store.annotate_store
    map = query.map_cells
    load_query_data = classmethod(query.load_query_data)
    prepare_query_anndata = classmethod(query.prepare_query_anndata)
    minify_adata = minification.minify_adata  # type: ignore[assignment]  # its model is self
    train = training.train  # type: ignore[assignment]  # its model is self
    save = saving.save

    # For the final classes.
    @abstractmethod
    def _phases(self, max_epochs: int, n_epochs_pretrain: int | None, by_default: bool) -> MixturePhases | None:
        """The phases of a mixture; ``None`` for a model without one."""

    @abstractmethod
    def _see_cells(self) -> None:
        """Settle what depends on the cells, in a model that was made without and got some."""

    @abstractmethod
    def _found(self) -> dict[str, Any]:
        """Values that training found, for ``.uns``."""

    @abstractmethod
    def _draw_latent(self, cells: Cells, component: list[int] | None) -> Tensor:
        """New z (n, d) for the conditions of the given cells."""

    @abstractmethod
    def _cut(self, n_clusters: int | None) -> list[str]:
        """Names of the clusters where the tree is cut; none for a model without clusters."""

    @abstractmethod
    def _encode(
        self, adata: AnnData | None, n_clusters: int, indices: np.ndarray | None = None, novelty: Novelty | None = None
    ) -> Iterator[Encoded]:
        """What ``annotate`` writes of each cell, block by block."""

    @abstractmethod
    def _tables(self, n_clusters: int | None) -> dict[str, pd.DataFrame]:
        """Tables for ``.uns``, by name."""

    @abstractmethod
    def _axes(self) -> np.ndarray | None:
        """Principal axes (g, d) of a linear model; ``None`` for others."""

    @abstractmethod
    def _component_index(self, component: int | str) -> list[int]:
        """Components of a cluster, from its name."""
