"""Integration of blood cells from three chemistries: batches removed, cell types kept (scib-metrics).

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/integration.py --seeds 5

mixvi's CVAE and conditional GMVAE, scVI, harmony (harmonypy) and PCA in one run, on the raw counts of the 2,000 most
variable genes of ``pbmc_3tech.h5ad``, cells without a label left out. The labels of cells score, and nothing else.
Results are kept in benchmarks/results/integration.csv and go on where they ended; the summary is integration.md.
"""

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import harmonypy
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scib_metrics.benchmark import BatchCorrection, Benchmarker, BioConservation

import mixvi

RESULTS = Path(__file__).parent / "results"
FIGURES = ["Total", "Batch correction", "Bio conservation"]
EPOCHS = 120
NET = {"n_layers": 2, "n_latent": 30}  # of all models


def load():
    """Labelled cells, genes selected by one line of scanpy, and principal components of log-normalised counts."""
    adata = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / "pbmc_3tech.h5ad")
    adata = adata[adata.obs["cell_type"] != "unassigned"].copy()
    adata.layers["counts"] = adata.X.copy()
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


METHODS = {"CVAE": cvae, "GMVAE": gmvae, "scVI": scvi_, "harmony": harmony, "PCA": pca}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    args = parser.parse_args()
    path = RESULTS / "integration.csv"
    adata = load()
    for seed in range(args.seeds):
        done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["seed", "method"])
        found = {}
        for name in args.methods:
            if not ((done["seed"] == seed) & (done["method"] == name)).any():
                scvi.settings.seed = seed
                start = time.perf_counter()
                adata.obsm[name] = METHODS[name](adata)
                found[name] = time.perf_counter() - start
                print(name, seed, round(found[name]), flush=True)
        if not found:
            continue
        scores = Benchmarker(
            adata, "batch", "cell_type", list(found), BioConservation(), BatchCorrection(),
            pre_integrated_embedding_obsm_key="X_pca", n_jobs=1, progress_bar=False,
        )  # fmt: skip
        scores.benchmark()
        table = scores.get_results(min_max_scale=False).loc[list(found)].apply(pd.to_numeric).round(4)
        table.insert(0, "seed", seed)
        table.insert(1, "seconds", [round(found[name]) for name in found])
        table.rename_axis("method").reset_index().to_csv(path, mode="a", header=not path.exists(), index=False)
    write_summary(pd.read_csv(path), adata)


def write_summary(table, adata):
    lines = [
        f"Three chemistries, {adata.n_obs:,} cells x {adata.n_vars:,} genes, {EPOCHS} epochs; scib-metrics.",
        "",
        "| method | total, mean | total, min | batch correction | bio conservation | seconds | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in table.groupby("method", sort=False):
        mean = group[[*FIGURES, "seconds"]].mean()
        lines.append(
            f"| {name} | {mean['Total']:.3f} | {group['Total'].min():.3f} | {mean['Batch correction']:.3f} "
            f"| {mean['Bio conservation']:.3f} | {mean['seconds']:.0f} | {len(group)} |"
        )
    (RESULTS / "integration.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
