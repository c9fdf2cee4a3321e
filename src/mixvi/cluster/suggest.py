"""Cells to label next: typical cells of the groups with the highest total entropy."""

import numpy as np
import pandas as pd


def typical_first(responsibilities: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Order cells: the most typical one of each component, then the second of each, and so on.

    A cell belongs to the component with its highest responsibility. Components with more uncertainty come first.

    Parameters
    ----------
    responsibilities
        (n, K) of the components.
    uncertainty
        (K,) of each component.

    Returns
    -------
    (n,) row numbers.
    """
    own, highest = responsibilities.argmax(1), responsibilities.max(1)
    cells = pd.DataFrame({"own": own, "highest": highest, "uncertainty": -uncertainty[own]})
    cells["turn"] = cells.groupby("own")["highest"].rank(method="first", ascending=False)
    return cells.sort_values(["turn", "uncertainty", "own"], kind="stable").index.to_numpy()
