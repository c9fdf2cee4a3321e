"""Integration: batches removed, cell types kept (scib-metrics).

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/run.py integration --seeds 5
    ... --methods scANVI DRVI

Raw counts of the 2,000 most variable genes, cells without a label left out. All nets have two layers and 30 latent
dimensions, and train for 120 epochs. The number of clusters of the GMVAE is open; its latent space is scored. scANVI
sees the labels; for all others the labels of cells score, and nothing else.
"""

import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

import mixvi

RESULTS = Path(__file__).parent / "results"
SETS = {
    "pbmc_3tech": "three chemistries", "pancreas_panc8_500": "pancreas, five technologies",
    "kang_ctrl_5donors_2511genes": "Kang, five donors", "kang_pbmc": "Kang, conditions",
}  # fmt: skip
FIGURES = ["Total", "Batch correction", "Bio conservation", "BRAS", "cLISI", "iLISI"]
EPOCHS = 120
NET = {"n_layers": 2, "n_latent": 30}  # of all models


def load(name):
    """Labelled cells, genes selected by one line of scanpy, and principal components of log-normalised counts."""
    adata = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")
    adata = adata[adata.obs["cell_type"] != "unassigned"].copy()
    if name == "kang_pbmc":
        adata.obs["batch"] = adata.obs["condition"]
    adata.layers["counts"] = adata.X.copy()
    if adata.n_vars > 2000:
        sc.pp.highly_variable_genes(
            adata, n_top_genes=2000, flavor="seurat_v3", layer="counts", batch_key="batch", subset=True
        )
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=30)
    return adata


def pca(adata):
    return adata.obsm["X_pca"]


def harmony(adata):
    import harmonypy

    found = harmonypy.run_harmony(adata.obsm["X_pca"], adata.obs, "batch", random_state=scvi.settings.seed)
    z = np.asarray(found.Z_corr)
    return z if len(z) == adata.n_obs else z.T


def scvi_(adata):
    scvi.model.SCVI.setup_anndata(adata, layer="counts", batch_key="batch")
    model = scvi.model.SCVI(adata, **NET, gene_likelihood="nb")
    model.train(EPOCHS, enable_progress_bar=False)
    return model.get_latent_representation()


def cvae(adata):
    mixvi.CVAE.setup_anndata(adata, layer="counts", batch_key="batch")
    model = mixvi.CVAE(adata, **NET)
    model.train(EPOCHS, enable_progress_bar=False)
    return model.get_latent_representation()


def gmvae(adata):
    mixvi.GMVAE.setup_anndata(adata, layer="counts", batch_key="batch")
    model = mixvi.GMVAE(adata, **NET)
    model.train(EPOCHS, enable_progress_bar=False)
    return model.get_latent_representation()


def scanvi(adata):
    scvi.model.SCVI.setup_anndata(adata, layer="counts", batch_key="batch")
    model = scvi.model.SCVI(adata, **NET, gene_likelihood="nb")
    model.train(EPOCHS, enable_progress_bar=False)
    model = scvi.model.SCANVI.from_scvi_model(model, "unlabeled", labels_key="cell_type")
    model.train(enable_progress_bar=False)
    return model.get_latent_representation()


def drvi(adata):
    from drvi.model import DRVI

    DRVI.setup_anndata(adata, layer="counts", batch_key="batch", is_count_data=True)
    model = DRVI(adata, n_latent=30)
    model.train(EPOCHS, enable_progress_bar=False)
    return model.get_latent_representation()


METHODS = {
    "CVAE": cvae, "GMVAE": gmvae, "scVI": scvi_, "harmony": harmony, "PCA": pca, "scANVI": scanvi, "DRVI": drvi
}  # fmt: skip
DEFAULT = ("CVAE", "GMVAE", "scVI", "harmony", "PCA")


def run(name, method, seed):
    """One row: all measures of one latent space."""
    from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation

    adata = load(name)
    scvi.settings.seed = seed
    start = time.monotonic()
    adata.obsm[method] = METHODS[method](adata)
    seconds = round(time.monotonic() - start, 1)
    scores = Benchmarker(
        adata, "batch", "cell_type", [method], BioConservation(), BatchCorrection(),
        pre_integrated_embedding_obsm_key="X_pca", n_jobs=1, progress_bar=False,
    )  # fmt: skip
    scores.benchmark()
    found = scores.get_results(min_max_scale=False).loc[method]
    return [pd.to_numeric(found).to_dict() | {"seconds": seconds}]


def summarise(frame):
    """Mean and minimum of each method on each set, and the mean of the sets."""
    sets = [name for name in SETS if name in set(frame["set"])]
    lines = [f"| total, mean (min) | {' | '.join(SETS[s] for s in sets)} | mean of sets | seeds |"]
    lines += ["|---" * (len(sets) + 3) + "|"]
    order = frame.groupby(["run", "set"])["Total"].mean().groupby("run").mean().sort_values(ascending=False).index
    for method in order:
        rows = frame[frame["run"] == method]
        each = rows.groupby("set")["Total"].agg(["mean", "min", "count"]).reindex(sets)
        cells = " | ".join(f"{row['mean']:.3f} ({row['min']:.3f})" for _, row in each.iterrows()).replace(
            "nan (nan)", "-"
        )
        mean = each["mean"].mean(skipna=False)
        lines.append(f"| {method} | {cells} | **{mean:.3f}** | {each['count'].min():.0f} |".replace("**nan**", "-"))
    lines += ["", f"| mean of sets | {' | '.join(FIGURES)} | seconds | memory, GB |", "|---" * (len(FIGURES) + 3) + "|"]
    for method in order:
        rows = frame[frame["run"] == method].groupby("set")[[*FIGURES, "seconds", "memory"]].mean().mean()
        figures = " | ".join(f"{rows[name]:.3f}" for name in FIGURES)
        lines.append(f"| {method} | {figures} | {rows['seconds']:.0f} | {rows['memory']:.1f} |".replace("nan", "-"))
    (RESULTS / "integration.md").write_text("\n".join(lines) + "\n")
