"""Ambient RNA: counts that are in every droplet, from cells that broke."""

import numpy as np

ENOUGH = 50.0  # counts of a gene that ambient RNA alone would give; the Poisson error of the share is then at most 14 %


def ambient_share(seen: np.ndarray) -> float:
    """Largest share of ambient RNA that the counts of the clusters allow.

    Ambient RNA has the mean profile of all cells. A gene that the cells of a cluster do not express is then found in
    them as often as the ambient share says. So the lowest ratio of observed to mean expression, over the genes of a
    cluster, is an upper bound. The second lowest is taken, against chance, and the median over clusters.

    Parameters
    ----------
    seen
        (K, g) pooled counts of each cluster.

    Returns
    -------
    The share, from 0 to about 1; nan with fewer than two clusters, or too few counts.

    References
    ----------
    Young and Behjati 2020, SoupX removes ambient RNA contamination from droplet-based single-cell RNA sequencing data.
    """
    if len(seen) < 2:
        return float("nan")
    mean = seen.sum(0) / max(seen.sum(), 1)
    found = []
    for counts in seen:
        expected = counts.sum() * mean
        ratio = counts[expected >= ENOUGH] / expected[expected >= ENOUGH]
        if len(ratio) > 1:
            found.append(np.partition(ratio, 1)[1])
    return float(np.median(found)) if found else float("nan")
