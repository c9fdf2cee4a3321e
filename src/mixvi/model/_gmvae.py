"""Gaussian-mixture variational autoencoder for AnnData."""

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS, settings
from scvi.utils import track
from torch import Tensor

from mixvi._version import __version__
from mixvi.cluster import MergeTree, merge_tree, neighbor_graph
from mixvi.model._conditional import ConditionalMixin
from mixvi.model._evidence import EvidenceMixin
from mixvi.module._elbo import Cells
from mixvi.module._gmvae import GMVAEModule
from mixvi.module.likelihoods import LIKELIHOODS

logger = logging.getLogger(__name__)


class GMVAE(ConditionalMixin, EvidenceMixin):
    """Gaussian-mixture variational autoencoder: the components of its prior are the clusters.

    Training starts as a VAE. Half-way the cells are partitioned by neighbour graphs (`mixvi.consensus.place`), each
    component takes the place of one part, and all is trained on together.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`. Batch and covariates are conditioned on, so clusters need not follow them;
        labelled classes become the first components, under their own names.
    n_clusters
        Number of clusters. ``None``: the number of classes if there are labels, else as many as the neighbour graph
        shows (`mixvi.cluster.merge`, `mixvi.rare`), at most 64. Of fewer than it shows, data that are not counts are
        also asked by a net that prefers clusters of like sizes.
    n_latent
        Width d of the latent space.
    n_hidden, n_layers, dropout_rate
        Width, number and dropout of the hidden layers of encoder and decoder; ``n_layers=0`` is a linear map.
    likelihood
        ``"nb"``, ``"zinb"``, ``"poisson"`` (counts), ``"bernoulli"`` (values in [0, 1]), ``"normal"`` (any, one learned
        variance), or ``"auto"``: a look at the data.
    concentration
        Of the Dirichlet prior of the cluster weights: 1 is flat, more makes clusters more equal in size.
    hierarchical
        Clusters of free shape, bent by a second latent (Dilokthanakul 2016).
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data (it says which cell and gene, and what to do), or ``n_clusters`` is
        not between 1, or the number of labelled classes, and the number of cells.

    Examples
    --------
    >>> mixvi.GMVAE.setup_anndata(adata, layer="counts", batch_key="batch")
    >>> model = mixvi.GMVAE(adata)
    >>> model.train()
    >>> model.annotate()
    >>> sc.pp.neighbors(adata, use_rep="X_mixvi")

    See Also
    --------
    mixvi.module.GMVAEModule : the maths
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        n_clusters: int | None = None,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        likelihood: str = "auto",
        concentration: float = 1.0,
        hierarchical: bool = False,
        registry: dict | None = None,
    ):
        super().__init__(adata, registry)
        layout = self._layout()
        n_components = self._n_components(n_clusters, layout.n_labels)
        self.likelihood_ = likelihood = self._likelihood(likelihood)
        hidden = self._hidden(n_latent, n_hidden, n_layers, dropout_rate)
        part = LIKELIHOODS[likelihood]
        self.module = GMVAEModule(layout, part, n_components, n_latent, hidden, concentration, hierarchical)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    @property
    def n_clusters(self) -> int:
        """Number of clusters in use; before training the most there may be."""
        return int(self.module.prior.active.sum())

    @property
    def cluster_names(self) -> list[str]:
        """Cluster names, labelled classes first, then ``"0"``, ``"1"``, ... from the largest down."""
        classes = self._classes()
        others = [str(k) for k in range(self.n_clusters - len(classes))]
        return [*classes, *(f"new {name}" if name in classes else name for name in others)]

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Cluster of each cell; new cells are assigned without a refit.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        soft
            Return the probability of each cluster: responsibilities, made no surer on average than held-out labels, or
            other partitions of the cells, are found to agree (page GMVAE). A cell's label is not looked at.

        Returns
        -------
        (n,) cluster names; with ``soft=True`` a table (n, K) of probabilities, one row a cell, rows summing to 1.
        """
        table = self._probabilities(adata, indices, batch_size)
        return table if soft else table.columns.to_numpy()[table.to_numpy().argmax(1)]

    def merge_tree(self) -> MergeTree:
        """Which clusters belong together, by the neighbour graph of the latent space; `mixvi.pl.merge_tree` draws it.

        Returns
        -------
        `mixvi.cluster.MergeTree`; its ``cut(n)`` says which clusters to take together for n.
        """
        names = self.cluster_names
        graph = neighbor_graph(self.get_latent_representation(), settings.seed or 0)
        return merge_tree(pd.Categorical(self.predict(), names).codes, graph, names)

    def cluster_stability(self, n_seeds: int = 5, max_epochs: int | None = None, **kwargs) -> pd.DataFrame:
        """How far each cluster can be trusted: whether models that differ by their seed alone find it again.

        Fits ``n_seeds`` more models of the same settings to the same cells, with the arguments of `train` that are
        given here. A cluster found again has Jaccard index 1
        (cells in both over cells in either, with the most similar cluster of the other model); 0.75 is usually called
        stable, and below 0.5 a cluster dissolves (Hennig 2007).

        Parameters
        ----------
        n_seeds
            Further models, at least one.
        max_epochs
            Of each; ``None`` takes as many as this model was trained for.
        **kwargs
            Of `train`.

        Returns
        -------
        One row a cluster, ``cluster_names`` as index: ``cells``, ``mean`` and ``min`` of the Jaccard index over models.

        Raises
        ------
        ValueError
            If ``n_seeds`` is below 1, or the AnnData was registered anew since this model was made.
        """
        if not isinstance(n_seeds, Integral) or n_seeds < 1:
            raise ValueError(f"n_seeds={n_seeds!r}; it must be a whole number, 1 or more.")
        if self._get_most_recent_anndata_manager(self.adata) is not self.adata_manager:
            raise ValueError(
                "The AnnData was registered anew since this model was made, and other models would be fitted; call "
                f"setup_anndata with this model's arguments and make it anew: {self.registry_['setup_args']}."
            )
        own = pd.get_dummies(pd.Categorical(self.predict(), self.cluster_names)).to_numpy(dtype=float)  # (n, K)
        kwargs = {"enable_progress_bar": False} | kwargs
        found = []
        for seed in track(range(1, n_seeds + 1), description="fits"):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = type(self)(self.adata, **self.init_params_["non_kwargs"])
                model.train(max_epochs or len(self.history["elbo_train"]), **kwargs)
            other = pd.get_dummies(pd.Series(model.predict())).to_numpy(dtype=float)
            both = own.T @ other
            found.append((both / (own.sum(0)[:, None] + other.sum(0) - both)).max(1))
        found = np.array(found)
        columns = {"cells": own.sum(0).astype(int), "mean": found.mean(0), "min": found.min(0)}
        return pd.DataFrame(columns, self.cluster_names)

    def _draw_latent(self, cells: Cells, component: int | None) -> Tensor:
        return self.module.prior.sample(cells.c, component)

    def _probabilities(self, adata, indices, batch_size) -> pd.DataFrame:
        def probabilities(cells: Cells) -> Tensor:
            return self.module.prior.probabilities(self.module.encode(cells), cells)

        p = self._collect(probabilities, adata, indices, batch_size)[:, : self.n_clusters]
        names = (self.adata if adata is None else adata).obs_names
        return pd.DataFrame(p, names if indices is None else names[indices], self.cluster_names)

    def _component_index(self, component: int | str) -> int:
        names = self.cluster_names
        if str(component) not in names:
            raise ValueError(f"component={component!r} is not a cluster; there are {names}.")
        return names.index(str(component))

    def _axes(self) -> None:
        return None

    def _found(self) -> dict[str, Any]:
        return super()._found() | {
            "n_clusters": self.n_clusters,
            "temperature": round(self.module.prior.temperature.item(), 3),
        }

    def _classes(self) -> list[str]:
        """Names of the labelled classes."""
        labels = self.registry_["field_registries"].get(REGISTRY_KEYS.LABELS_KEY)
        return [] if labels is None else [str(name) for name in labels["state_registry"]["categorical_mapping"][:-1]]

    def _n_components(self, n_clusters: int | None, n_labels: int) -> int | None:
        if n_clusters is None:
            if n_labels and self.adata is not None:
                logger.info(
                    "GMVAE took the classes of .obs[%r] for all clusters there are, %d; cells of other kinds would "
                    "join the most similar class. A larger n_clusters leaves room for new clusters.",
                    self.registry_["setup_args"]["labels_key"], n_labels,
                )  # fmt: skip
            return n_labels or None
        n_cells = self.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["n_obs"]
        least = max(n_labels, 1)
        if not isinstance(n_clusters, int | np.integer) or not least <= n_clusters <= n_cells:
            why = " (each labelled class is a cluster)" if n_labels else ""
            raise ValueError(
                f"n_clusters={n_clusters!r}; it must be a whole number between {least}{why} and {n_cells}, the number "
                "of cells, or None to let the data say."
            )
        return n_clusters
