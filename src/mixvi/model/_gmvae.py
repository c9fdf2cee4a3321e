"""Gaussian-mixture variational autoencoder for AnnData."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from torch import Tensor

from mixvi._checks import check_flag, check_number
from mixvi._version import __version__
from mixvi.cluster.agglomerate import MIN_WORTH
from mixvi.data import is_name
from mixvi.model import _from_vae, _markers, _outliers, _predict, _qc, _report, _stability, _suggest, _update
from mixvi.model._arguments import hidden_layers
from mixvi.model._base import LatentModel
from mixvi.model._conditional import ConditionalMixin
from mixvi.model._evidence import EvidenceMixin
from mixvi.model._init import check_init, check_n_clusters, name_of
from mixvi.model._tree import ClusterTree
from mixvi.model.conditions import with_batches
from mixvi.model.registry import layout_of
from mixvi.model.streaming import check_trained
from mixvi.model.unchanged import check_cells, is_of_training
from mixvi.model.values import likelihood_of, settle_likelihood
from mixvi.module._gmvae import GMVAEModule
from mixvi.module.cells import Cells
from mixvi.module.mixtures import MAX_COMPONENTS
from mixvi.train import Clusters, MixturePhases

N_WRITTEN_MARKERS = 50  # of each cluster and comparison that `annotate` writes; `markers` gives all genes


class GMVAE(ConditionalMixin, EvidenceMixin, LatentModel):
    """Gaussian-mixture variational autoencoder: the components of its prior are the clusters.

    Training starts as a VAE. When the bound on held-out cells settles, a neighbour graph splits the cells into many
    small communities. Each community initialises one component of the mixture. Then all parameters are trained
    together. A tree over the components shows the evidence of each split on held-out counts. A cut through the tree
    gives the clusters.

    Parameters
    ----------
    adata
        Registered with `setup_anndata`. The model is conditioned on batch and covariates, so clusters do not depend
        on them. Labelled classes become the first clusters, under their own names.
    n_clusters
        Number of clusters into which the tree is cut. ``None`` takes the labelled classes, if there are labels. Else
        any two clusters differ significantly on held-out counts, by at least ``min_worth``. `predict` and ``annotate``
        can cut the tree of the same fit at other numbers.
    n_latent
        Number of latent dimensions d.
    n_hidden, n_layers, dropout_rate
        Width, number and dropout of the hidden layers of encoder and decoder; ``n_layers=0`` is a linear map.
    likelihood
        ``"nb"``, ``"zinb"``, ``"poisson"`` (counts), ``"bernoulli"`` (values in [0, 1]), ``"normal"`` (any, one learned
        variance), or ``"auto"``: chosen by the values.
    dispersion
        ``"gene"``: one inverse dispersion for each gene. ``"gene-batch"``: one for each gene and batch (``"nb"`` and
        ``"zinb"``), for batches that differ in their noise. ``"nb"`` then trains more slowly on a CPU.
    batch_representation, embedding_dim
        ``"one-hot"``: weights for each batch; ``"embedding"``: a learned place for each in so many dimensions.
    concentration
        Concentration of the Dirichlet prior of the cluster weights: 1 is flat, and higher values favour clusters of
        equal size.
    hierarchical
        A second latent w shapes each component, so clusters need not be Gaussian (Dilokthanakul 2016).
    init
        How the components are initialised. ``"leiden"``: communities of a shared-neighbour graph (with labels: label
        spreading over it). ``"n2d"``: Gaussian mixtures on a UMAP layout of the latent space; ``"imsat"``:
        information-maximising nets; both are made for images and need ``n_clusters``. ``"vat"``: nets that learn from
        labels by virtual adversarial training. Or one part for each cell (n,), the name of a column of ``.obs``, or a
        function from latent means (m, d) to parts (m,). ``None`` leaves one cluster.
    guidance
        Weight, in nats, of a loss term that keeps each cell near its initial component during joint training. 0
        removes this term.
    min_worth
        Nats per cell by which two clusters must differ on held-out counts. If more than 5 % of the cells fit the other
        cluster better, 5.9 times as many. Not used with ``n_clusters``.
    registry
        Used by ``load``.

    Raises
    ------
    ValueError
        If the likelihood cannot describe the data; the message names the cell, the gene and the remedy. If
        ``n_clusters`` is below 1, below the number of labelled classes, or above that of cells. If ``init`` is not
        known.

    Examples
    --------
    >>> mixvi.GMVAE.setup_anndata(adata, layer="counts", batch_key="batch")
    >>> model = mixvi.GMVAE(adata)
    >>> model.train()
    >>> model.annotate()
    >>> print(model.tree)
    >>> sc.pp.neighbors(adata, use_rep="X_mixvi")

    See Also
    --------
    mixvi.module.GMVAEModule : the maths
    """

    module: GMVAEModule
    names_: dict[str, str] = {}  # of clusters that the user or `update` named, by the node of the tree
    changes_: pd.DataFrame | None = None  # what became of the clusters of the model that was updated

    # of four rates and up to 400 epochs, the fewest epochs that reach the best held-out bound (docs/choices.md)
    _max_epochs, _learning_rate = 100, 4e-3

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
        dispersion: str = "gene",
        batch_representation: str = "one-hot",
        embedding_dim: int = 5,
        concentration: float = 1.0,
        hierarchical: bool = False,
        init: str | Sequence | Callable[[np.ndarray], np.ndarray] | None = "leiden",
        guidance: float = 5.0,
        min_worth: float = MIN_WORTH,
        registry: dict | None = None,
    ):
        super().__init__(adata, registry)
        layout = layout_of(self.registry_)
        self.n_wanted_ = check_n_clusters(n_clusters, layout.n_labels, self.registry_, self.adata, registry is not None)
        n_clusters = None if n_clusters is None else self.n_wanted_
        self._init = check_init(init, self.adata, self.n_wanted_, layout.n_labels, registry is not None)
        init = name_of(init)
        for name, value in (("guidance", guidance), ("min_worth", min_worth)):
            check_number(name, value, least=0)
        check_number("concentration", concentration, above=0)
        check_flag("hierarchical", hierarchical)
        self._guidance, self._min_worth = guidance, min_worth
        self.clusters_: dict[str, Any] | None = None  # what training found, as plain values
        self.likelihood_ = likelihood = settle_likelihood(self, likelihood)
        hidden = hidden_layers(n_latent, n_hidden, n_layers, dropout_rate)
        hidden = with_batches(hidden, layout, batch_representation, embedding_dim)
        room, part = max(MAX_COMPONENTS, self.n_wanted_ or 0), likelihood_of(likelihood, dispersion, layout)
        self.module = GMVAEModule(layout, part, room, n_latent, hidden, concentration, hierarchical)
        self.mixvi_version_ = __version__
        self.init_params_ = self._get_init_params(locals())

    @property
    def n_clusters(self) -> int:
        """Number of clusters where the tree is cut; before training what was asked for, or 1."""
        if self.clusters_ is None:
            return self.n_wanted_ or 1
        tree = self._clusters().tree
        return min(self.n_wanted_ or tree.n_default, tree.n_leaves)

    @property
    def cluster_names(self) -> list[str]:
        """Names of the clusters, labelled classes first. Others are numbered by size, or have names of your own."""
        return self._names(self.n_clusters)

    @property
    def tree(self) -> ClusterTree:
        """The tree over all components, to print, to read as ``tree.table``, or to draw with `mixvi.pl.tree`."""
        return self._named_tree()

    def rename_clusters(self, names: dict[str, str]) -> None:
        """Give clusters names of your own, such as those of cell types. They are saved with the model.

        Parameters
        ----------
        names
            New name by present name, of clusters in `cluster_names`. Labelled classes keep their names.

        Raises
        ------
        ValueError
            If there is no such cluster, it is a labelled class, or two clusters would have the same name.
        """
        clusters, present, classes = self._clusters(), self.cluster_names, self._classes()
        if not isinstance(names, dict) or not all(map(is_name, names.values())):
            raise ValueError(f"names={names!r}; pass a dictionary of new names, such as {{'0': 'B cells'}}.")
        if unknown := [name for name in names if name not in present or name in classes]:
            raise ValueError(f"{unknown} cannot be renamed; there are {[n for n in present if n not in classes]}.")
        nodes = [str(node) for node in clusters.nodes(self.n_clusters)]
        given = self.names_ | {nodes[present.index(name)]: new for name, new in names.items()}
        renamed = [given.get(node, name) for node, name in zip(nodes, present, strict=True)]
        everywhere = ClusterTree(clusters, renamed).names
        if twice := sorted({name for name in everywhere if everywhere.count(name) > 1}):
            raise ValueError(
                f"The tree would have the names {twice} more than once. Pass others: the parts of a cluster '0' are "
                "called '0.0' and '0.1', and the node above clusters '0' and '1' is called '0+1'."
            )
        self.names_ = given

    from_scvi_model = classmethod(_from_vae.from_scvi_model)
    predict = _predict.predict
    predict_set = _outliers.predict_set
    subclusters = _predict.subclusters
    suggest_labels = _suggest.suggest_labels
    markers = _markers.markers
    quality_control = _qc.quality_control
    report = _report.report
    cluster_stability = _stability.cluster_stability
    update = _update.update

    def _draw_latent(self, cells: Cells, component: list[int] | None) -> Tensor:
        return self.module.prior.sample(cells.c, component)

    def _see_cells(self) -> None:
        self._init = check_init(self._init, self.adata, self.n_wanted_, len(self._classes()), is_loaded=True)

    def _phases(self, max_epochs: int, n_epochs_pretrain: int | None, by_default: bool) -> MixturePhases:
        clusters = None if self.clusters_ is None else self._clusters()
        if clusters is not None:
            check_cells(self, "Further training")
        until_settled = by_default and n_epochs_pretrain is None and clusters is None
        if n_epochs_pretrain is None:
            n_epochs_pretrain = -1 if clusters is not None else max_epochs // 2
        return MixturePhases(
            n_epochs_pretrain, init=self._init, guidance=self._guidance, n_clusters=self.n_wanted_,
            min_worth=self._min_worth, clusters=clusters, until_settled=until_settled,
        )  # fmt: skip

    def _named_tree(self) -> ClusterTree:
        return ClusterTree(self._clusters(), self.cluster_names)

    def _clusters(self) -> Clusters:
        """What training found."""
        check_trained(self)
        if self.clusters_ is None:
            raise ValueError(
                "This GMVAE has one cluster and no tree: training ended before clusters were initialised, or init=None."
            )
        return Clusters.from_dict(self.clusters_)

    def _names(self, n_clusters: int) -> list[str]:
        classes = self._classes()
        if n_clusters < len(classes):  # clusters of several classes have the names of all
            groups, others = self._clusters().groups(n_clusters), (f"new {k}" for k in count())
            joined = ["+".join(classes[leaf] for leaf in group if leaf < len(classes)) for group in groups]
            return [name or next(others) for name in joined]
        nodes = range(n_clusters) if self.clusters_ is None else self._clusters().nodes(n_clusters)
        given = [self.names_.get(str(node)) for node in nodes[len(classes) :]]
        numbers = (f"new {k}" if str(k) in classes else str(k) for k in count())
        own = list(islice(numbers, len(given)))
        free = (name for name in numbers if name not in given)
        others = (next(free) if name in given else name for name in own)
        return [*classes, *(other if name is None else name for name, other in zip(given, others, strict=True))]

    def _cut(self, n_clusters) -> list[str]:
        return _predict.cut(self, n_clusters)

    def _encode(self, adata, n_clusters, indices=None, novelty=None) -> Iterator[_predict.Encoded]:
        return _predict.encode(self, adata, n_clusters, indices, novelty)

    def _tables(self, n_clusters: int | None) -> dict[str, pd.DataFrame]:
        if self.clusters_ is None:
            return {}
        tables = {"tree": self.tree.table}
        n_clusters = n_clusters or self.n_clusters
        if n_clusters > 1 and len(self.clusters_["overdispersion"]) and self.adata is not None and is_of_training(self):
            markers = self.markers(n_clusters).groupby(["cluster", "versus"], sort=False)
            tables["markers"] = markers.head(N_WRITTEN_MARKERS).reset_index(drop=True)
        return tables

    def _component_index(self, component: int | str) -> list[int]:
        names = self.cluster_names
        if str(component) not in names:
            raise ValueError(f"component={component!r} is not a cluster; there are {names}.")
        if self.clusters_ is None:
            return list(range(self.module.prior.n_room))
        return self._clusters().groups(self.n_clusters)[names.index(str(component))]

    def _axes(self) -> None:
        return None

    def _found(self) -> dict[str, Any]:
        return {"n_clusters": self.n_clusters, "temperature": round(self.module.prior.temperature.item(), 3)}

    def _classes(self) -> list[str]:
        """Names of the labelled classes."""
        if self.registry_["setup_args"]["labels_key"] is None:
            return []
        labels = self.registry_["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        return [str(name) for name in labels["categorical_mapping"][:-1]]
