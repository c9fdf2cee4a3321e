"""The counts that a GMVAE held out when it looked for clusters."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from mixvi.cluster.count_splitting import Halves, split_counts
from mixvi.data import CellsDataset
from mixvi.model.registration import registered
from mixvi.model.unchanged import check_cells
from mixvi.train import Counts, read_counts

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


class HeldOut(NamedTuple):
    """Counts of the m partitioned cells, in the order of ``Clusters.rows``."""

    counts: csr_matrix  # (m, g)
    stratum: np.ndarray | None  # (m,) combination of batch and covariates
    halves: Halves  # the split that training used


def counts_of(model: "GMVAE", rows: np.ndarray) -> Counts:
    """Registered counts of some cells, from memory or from a file.

    Parameters
    ----------
    model
        With its cells.
    rows
        (m,) row numbers.
    """
    return read_counts(model.module, CellsDataset(registered(model, None), model.device, resident=False), rows)


def held_out_counts(model: "GMVAE", what: str) -> HeldOut:
    """Split the counts again as training did.

    Parameters
    ----------
    model
        Trained on counts.
    what
        Name of the method that asks, for errors.

    Returns
    -------
    The counts and both parts.

    Raises
    ------
    ValueError
        If the model has no data, or other data than in training.
    """
    clusters = model._clusters()
    registered(model, None)
    check_cells(model, what)
    counts, stratum = counts_of(model, clusters.rows)
    return HeldOut(counts, stratum, split_counts(counts, clusters.overdispersion, seed=clusters.seed))
