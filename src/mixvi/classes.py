"""Classes that some cells are labelled with, found for the others over the neighbour graph."""

import warnings

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg
from sklearn.model_selection import StratifiedKFold

from mixvi.cluster import by_size, partition

SPREAD = 0.99  # share of its label that a cell passes on
FOLDS = 5  # into which labels are cut to see how well they are found
SHRUNKEN = 0.1  # of the cells that its share of the labels would make one expect in a class
SOME = 20  # labels that say more than nothing of this


def partition_with_classes(
    graph: csr_matrix, labels: np.ndarray, n_classes: int, communities: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, float | None]:
    """Split cells into the classes that some of them are labelled with, and parts that no class reaches.

    Labels spread over the graph (`spread`), and a cell's own shares are multiplied by the mean ones of its community
    (Leiden at resolution 1), so that few labels do not lose themselves; unless labels, held out a fifth at a time, are
    found better without, as many labels may be that cut communities. Where there are to be more parts than classes,
    those ``communities`` that have the fewest labels for their size become parts of their own; if these are too few,
    the cells in them are partitioned anew.

    Parameters
    ----------
    graph
        (n, n) weighted neighbour graph.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes l.
    communities
        (n,) community of each cell, k in all, of which k - l are to be parts; ``None`` stops at the classes.
    seed
        Of Leiden.

    Returns
    -------
    (n,) part of each cell: class l is part l, and further ones, the largest first, come after. -1 where there is no
    further part and no label reaches. And the share of held-out labels that were found (`share_found`), ``None`` if
    there were fewer than ``SOME``.
    """
    labelled = labels >= 0
    together = partition(graph, seed=seed)

    def classes(labels: np.ndarray, by_community: bool) -> np.ndarray:
        reach = spread(graph, labels, n_classes)
        if by_community:
            reach *= pd.DataFrame(reach).groupby(together).transform("mean").to_numpy()
        return np.where(reach.any(1), reach.argmax(1), -1)

    right = {True: 0, False: 0}
    folds = held_out(labels, seed)
    for out in folds:
        rest = labels.copy()
        rest[out] = -1
        for way in right:
            right[way] += (classes(rest, way)[out] == labels[out]).sum()
    by_community = right[True] >= right[False]
    n_asked = sum(map(len, folds))
    share = share_found(right[by_community], n_asked) if n_asked >= SOME else None
    part = classes(labels, by_community)
    part[labelled] = labels[labelled]
    if communities is None or labelled.all():
        return part, share
    size, found = np.bincount(communities), np.bincount(communities[labelled], minlength=communities.max() + 1)
    expected = size * labelled.mean()
    lack = (expected - found) / np.sqrt(np.maximum(expected, 1e-12))  # in standard deviations of a Poisson count
    n_new = max(len(size) - n_classes, 0)
    new = np.argsort(-lack, kind="stable")[:n_new]
    new = new[lack[new] >= 0]
    cells = np.flatnonzero(np.isin(communities, new) & ~labelled)
    if len(cells):
        one_each = len(np.unique(communities[cells])) == n_new
        inside = communities[cells] if one_each else partition(graph[cells][:, cells], n_new, seed)
        part[cells] = n_classes + by_size(inside)
    return part, share


def share_found(n_found: int, n_asked: int) -> float:
    """Share of labels that are found, as if one more had been and one had not, so that few are not certainty.

    References
    ----------
    Laplace 1814, Essai philosophique sur les probabilites: the rule of succession.
    """
    return (n_found + 1) / (n_asked + 2)


def held_out(labels: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """The labelled cells a fifth at a time, every class spread over the fifths.

    The only cell of a class is in none, as nothing could find it. Without unlabelled cells there is nothing to find,
    and no fifth; nor is there where no class has five labels.

    Parameters
    ----------
    labels
        (n,) class of each labelled cell, -1 where there is none.
    seed
        Of their order.
    """
    known = labels >= 0
    n_labels = np.bincount(labels[known], minlength=1)
    if known.all() or n_labels.max() < FOLDS:
        return []
    asked = np.flatnonzero(known & (n_labels > 1)[labels])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return [asked[fold] for _, fold in folds.split(asked, labels[asked])]


def shrunken(part: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[int, int]:
    """Classes with few cells for their share of the labels, and how many: fewer than ``SHRUNKEN`` of what it promises.

    Parameters
    ----------
    part
        (n,) part of each cell.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes, the first parts.
    """
    known = labels[labels >= 0]
    expected = np.bincount(known, minlength=n_classes) * len(part) / max(len(known), 1)
    size = np.bincount(part, minlength=n_classes)
    return {k: int(size[k]) for k in range(n_classes) if size[k] < SHRUNKEN * expected[k]}


def spread(graph: csr_matrix, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """How strongly each class reaches each cell over the graph, when labels spread along its edges (Zhou 2004).

    Parameters
    ----------
    graph
        (n, n) weighted neighbour graph.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes l.

    Returns
    -------
    (n, l) shares, rows summing to 1; zeros where no label reaches.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, Learning with local and global consistency, NIPS.
    """
    n = len(labels)
    scale = diags(np.maximum(np.asarray(graph.sum(1)).ravel(), 1e-12) ** -0.5)
    system = identity(n) - SPREAD * (scale @ graph @ scale)
    start = np.zeros((n, n_classes))
    start[np.flatnonzero(labels >= 0), labels[labels >= 0]] = 1
    reach = np.column_stack([cg(system, column, rtol=1e-6)[0] for column in start.T]).clip(min=0)
    return reach / np.maximum(reach.sum(1, keepdims=True), 1e-300)
