"""Ambient RNA: counts that are in every droplet, from cells that broke."""

import numpy as np

GENES = 100  # with so many genes of enough counts, some are specific to other clusters
ENOUGH_COUNTS = 50.0  # counts of a gene in a cluster, if its expression were the mean of all cells
LOWEST = 5  # genes whose counts are pooled


def ambient_share(seen: np.ndarray, held_out: np.ndarray) -> float:
    """Largest share of ambient RNA that the counts of the clusters allow.

    Ambient RNA has the mean profile of all cells. A gene that the cells of a cluster do not express is then found in
    them at the ambient share of its mean. So the lowest ratio of a gene's counts to its mean, over the genes of a
    cluster, is an upper bound. One part of the counts finds the five lowest genes, the other part measures them, so
    chance does not make the bound too low. The median over clusters is returned.

    Parameters
    ----------
    seen, held_out
        (K, g) pooled counts of each cluster, in two independent parts.

    Returns
    -------
    The share, from 0 to about 1; nan with fewer than two clusters, counts or genes than that needs.

    References
    ----------
    Young and Behjati 2020, SoupX removes ambient RNA contamination from droplet-based single-cell RNA sequencing data.
    """
    if len(seen) < 2:
        return float("nan")
    mean, found = seen.sum(0) / max(seen.sum(), 1), []
    for counts, others in zip(seen, held_out, strict=True):
        genes = np.flatnonzero(counts.sum() * mean >= ENOUGH_COUNTS)
        if len(genes) >= GENES:
            lowest = genes[np.argsort(counts[genes] / mean[genes], kind="stable")[:LOWEST]]
            found.append(others[lowest].sum() / max(others.sum() * mean[lowest].sum(), 1e-12))
    return float(np.median(found)) if found else float("nan")
