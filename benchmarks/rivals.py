"""Other clustering methods, each by its own defaults. Their packages are optional.

Each function takes counts of selected genes, a number of clusters and a seed. It yields what `clustering.run` scores:
(method, number asked for, cluster of each cell, probabilities (n, K) or ``None``, scored rows).
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import scanpy as sc

EVERY = slice(None)
N_PCS = 30


def log_normalised(cells):
    """A dense copy."""
    work = cells.copy()
    sc.pp.normalize_total(work, target_sum=1e4)
    sc.pp.log1p(work)
    work.X = work.X.toarray()
    return work


def components(cells, seed):
    """30 principal components of log-normalised counts."""
    work = log_normalised(cells)
    sc.pp.pca(work, n_comps=N_PCS, random_state=seed)
    return work.obsm["X_pca"]


def bayesian_mixture(cells, k, seed):
    """Scikit-learn's mixture with a Dirichlet process, on principal components, without empty components."""
    from sklearn.mixture import BayesianGaussianMixture

    latent = components(cells, seed)
    for asked, n in (("own", 30), ("true", k)):
        soft = (
            BayesianGaussianMixture(n_components=n, max_iter=1000, random_state=seed).fit(latent).predict_proba(latent)
        )
        hard, used = soft.argmax(1), np.unique(soft.argmax(1))
        yield "Bayesian mixture", asked, np.searchsorted(used, hard), soft[:, used], EVERY


def evoc(cells, k, seed):
    """EVoC on principal components; cells that it leaves out are a cluster of their own."""
    from evoc import EVoC

    yield "EVoC", "own", EVoC(random_state=seed).fit_predict(components(cells, seed)) + 1, None, EVERY


def eschr(cells, k, seed):
    """ESCHR 1.0.1 needs an older zarr than mixvi, so it runs in an environment of its own, which uv makes."""
    if shutil.which("uv") is None:
        raise ImportError("ESCHR needs uv")
    with tempfile.TemporaryDirectory() as folder:
        work = log_normalised(cells)
        np.savez(Path(folder) / "cells.npz", x=work.X.astype(np.float32))
        command = [
            "uv",
            "run",
            "--no-project",
            "--python",
            "3.12",
            "--with",
            "eschr==1.0.1",
            "--with",
            "zarr<3",
            "python",
        ]
        subprocess.run([*command, Path(__file__).parent / "eschr_cells.py", folder, str(seed)], check=True)
        found = np.load(Path(folder) / "found.npz")
    used = np.unique(found["hard"])
    yield "ESCHR", "own", np.searchsorted(used, found["hard"]), found["soft"][:, used], EVERY


def drvi_latent(cells, seed):
    """Latent space of DRVI."""
    import scvi
    from drvi.model import DRVI

    scvi.settings.seed = seed
    cells.layers["counts"] = cells.X
    DRVI.setup_anndata(cells, layer="counts", is_count_data=True)
    model = DRVI(cells)
    model.train(enable_progress_bar=False, accelerator="cpu")
    return model.get_latent_representation()


def clustpy(name):
    """A deep clustering method of ClustPy, at the labels' number of clusters."""

    def run(cells, k, seed):
        from clustpy import deep

        work = log_normalised(cells)
        sc.pp.scale(work, max_value=10)
        found = getattr(deep, name)(n_clusters=k, random_state=seed).fit_predict(work.X.astype(np.float32))
        yield f"{name} (ClustPy)", "true", found, None, EVERY

    return run


RIVALS = {
    "Bayesian mixture": bayesian_mixture, "EVoC": evoc, "ESCHR": eschr,
    "DEC": clustpy("DEC"), "IDEC": clustpy("IDEC"), "VaDE": clustpy("VaDE"),
}  # fmt: skip
