"""Label spreading: labels of some cells spread to the other cells along a neighbour graph."""

import warnings

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.model_selection import StratifiedKFold
from sklearn.semi_supervised import LabelSpreading

from mixvi.cluster.leiden import by_size

ALPHA = 0.99  # weight of a cell's neighbours; its own label has the rest (Zhou et al. 2004)
SPREADING_TOLERANCE = 1e-6  # last change per label; errors of shares are about 1e-4, and larger far from any label
MAX_ITER = 10_000  # the change falls by the factor ALPHA in each iteration; about 1,000 reach SPREADING_TOLERANCE
FOLDS = 5  # the usual choice for cross-validation: each fold keeps four fifths of the labels
MIN_ASKED = 20  # held-out labels; with fewer, the standard error of the share may exceed 0.11


def spread(graph: csr_matrix, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each class in each cell, by scikit-learn's label spreading.

    It solves F = alpha S F + (1 - alpha) Y. Here S is the graph, with each weight divided by the roots of both cells'
    degrees, and Y are the labels.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes l; a class without a label gets a column of zeros.

    Returns
    -------
    (n, l) shares in [0, 1]. Rows sum to 1, or to 0 for a cell that no label reaches.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, Learning with local and global consistency, NeurIPS.
    """
    shares, n_labels = np.zeros((len(labels), n_classes)), (labels >= 0).sum()
    if n_labels == 0:
        return shares
    rows = np.arange(len(labels))[:, None]  # scikit-learn asks for features, but the graph holds all that is needed
    weights = graph.astype(np.float64)
    model = LabelSpreading(lambda *_: weights, alpha=ALPHA, max_iter=MAX_ITER, tol=SPREADING_TOLERANCE * n_labels)
    model.fit(rows, labels)
    shares[:, model.classes_] = model.label_distributions_
    return shares


def classify(
    graph: csr_matrix, labels: np.ndarray, n_classes: int, communities: np.ndarray | None = None
) -> np.ndarray:
    """Class with the largest share in each cell; a labelled cell keeps its label.

    If there are k communities and l < k classes, some cell types may have no label. Then up to k - l communities become
    new parts: those with the fewest labels for their size. A community with more labels than expected stays.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes l, at least 1.
    communities
        (n,) community of each cell, numbered from 0 to k - 1. ``None`` gives classes only.

    Returns
    -------
    (n,) part of each cell: classes are 0 to l - 1, new parts are l, l + 1, ... with the largest first. A cell that no
    label reaches is -1.
    """
    known = labels >= 0
    shares = spread(graph, labels, n_classes)
    part = np.where(shares.any(1), shares.argmax(1), -1)
    part[known] = labels[known]
    if communities is not None:
        new = _rarely_labelled(communities, known, n_classes)
        cells = np.flatnonzero(np.isin(communities, new) & ~known)
        part[cells] = n_classes + by_size(communities[cells])
    return part


def _rarely_labelled(communities: np.ndarray, known: np.ndarray, n_classes: int) -> np.ndarray:
    """Up to k - l communities whose cells are labelled less often than all cells are."""
    size, found = np.bincount(communities), np.bincount(communities[known], minlength=communities.max() + 1)
    expected = size * known.mean()
    lack = (expected - found) / np.sqrt(np.maximum(expected, 1e-12))  # in standard deviations of a Poisson count
    most = np.argsort(-lack, kind="stable")[: max(len(size) - n_classes, 0)]
    return most[lack[most] >= 0]


def held_out(labels: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Five stratified folds of the labelled cells.

    A class with a single label is in no fold, because no label of it would be left. There are no folds if every cell
    is labelled, or if no class has five labels.

    Parameters
    ----------
    labels
        (n,) class of each labelled cell, -1 where there is none.
    seed
        Seed of the order of the cells.

    Returns
    -------
    One array (m,) of row numbers for each fold.
    """
    known = labels >= 0
    n_labels = np.bincount(labels[known], minlength=1)
    if known.all() or n_labels.max() < FOLDS:
        return []
    asked = np.flatnonzero(known & (n_labels > 1)[labels])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer labels than folds is in some of them only
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return [asked[fold] for _, fold in folds.split(asked, labels[asked])]


def found_share(graph: csr_matrix, labels: np.ndarray, n_classes: int, seed: int = 0) -> float | None:
    """Share of held-out labels that label spreading finds, by the rule of succession: (found + 1) / (held out + 2).

    Each fold of `held_out` is hidden in turn. By the rule, the share is below 1 even if every label is found.

    Parameters
    ----------
    graph
        (n, n) symmetric weights.
    labels
        (n,) class of each labelled cell, -1 where there is none.
    n_classes
        Number of classes.
    seed
        Seed of the folds.

    Returns
    -------
    A share in (0, 1), or ``None`` if fewer than 20 labels can be held out.

    References
    ----------
    Laplace 1814, Essai philosophique sur les probabilites.
    """
    folds = held_out(labels, seed)
    n_asked = sum(map(len, folds))
    if n_asked < MIN_ASKED:
        return None
    n_found = 0
    for out in folds:
        rest = labels.copy()
        rest[out] = -1
        n_found += (classify(graph, rest, n_classes)[out] == labels[out]).sum()
    return float((n_found + 1) / (n_asked + 2))
