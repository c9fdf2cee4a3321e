"""Called by rivals.py in an environment with ESCHR: cells.npz of a folder in, clusters in found.npz out."""

import os
import sys
from pathlib import Path

import anndata as ad
import eschr
import numpy as np

if __name__ == "__main__":
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    np.random.seed(seed)  # ESCHR has no seed of its own
    os.chdir(folder)
    cells = ad.AnnData(np.load("cells.npz")["x"])
    eschr.tl.consensus_cluster(cells, str(folder / "cells.zarr"))
    hard = cells.obs["hard_clusters"].astype(int).to_numpy()
    soft = cells.obsm["soft_membership_matrix"]
    np.savez("found.npz", hard=hard, soft=soft.toarray() if hasattr(soft, "toarray") else np.asarray(soft))
