"""GMVAE against scVI on 2,638 labelled blood cells, at the true number of clusters.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/pbmc3k.py

Both get the raw counts of the 2,000 most variable genes and train at their own defaults. scVI's latent space is
clustered by Leiden (resolution searched for K) and by k-means; GMVAE gives its own clusters. Labels are used once, to
score. Writes benchmarks/results/pbmc3k.csv and .md.
"""

import argparse
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import scanpy as sc
import scvi
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import mixvi
from mixvi import cluster

RESULTS = Path(__file__).parent / "results"


def load():
    """Labelled cells of pbmc3k, genes selected by one line of scanpy."""
    adata = mixvi.datasets.pbmc3k()
    adata = adata[adata.obs["cell_type"] != "unassigned"].copy()
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000, flavor="seurat_v3", subset=True)
    return adata


def run_mixvi(adata, k, seed):
    """GMVAE's own clusters."""
    mixvi.GMVAE.setup_anndata(adata)
    model = mixvi.GMVAE(adata, n_clusters=k)
    model.train(enable_progress_bar=False)
    return {"GMVAE": model.predict()}


def run_scvi(adata, k, seed):
    """scVI, and two ways to cluster its latent space."""
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    model.train(enable_progress_bar=False)
    z = model.get_latent_representation()
    return {
        "scVI + Leiden": cluster.partition(cluster.neighbor_graph(z, seed), k, seed),
        "scVI + k-means": KMeans(k, n_init=10, random_state=seed).fit_predict(z),
    }


def main():
    """Run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    n_seeds = parser.parse_args().seeds
    adata = load()
    truth = adata.obs["cell_type"]
    rows = []
    for seed in range(n_seeds):
        for run in (run_mixvi, run_scvi):
            scvi.settings.seed = seed
            start = time.monotonic()
            found = run(adata, truth.nunique(), seed)
            seconds = time.monotonic() - start
            for method, clusters in found.items():
                ari, nmi = adjusted_rand_score(truth, clusters), normalized_mutual_info_score(truth, clusters)
                rows.append({"method": method, "seed": seed, "ARI": ari, "NMI": nmi, "seconds": seconds})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(4)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "pbmc3k.csv", index=False)
    write_summary(table, n_seeds, adata)


def write_summary(table, n_seeds, adata):
    """Mean and minimum by method, with what they were measured on."""
    names = ("mixvi", "scvi-tools", "scanpy", "torch")
    by_method = table.groupby("method", sort=False)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    lines = [
        f"# pbmc3k: {adata.n_obs:,} cells x {adata.n_vars:,} genes, K = {adata.obs['cell_type'].nunique()}",
        "",
        f"`python benchmarks/pbmc3k.py --seeds {n_seeds}`, {platform.machine()}, OMP_NUM_THREADS={threads}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ".",
        "",
        "| method | ARI mean | ARI min | NMI mean | seconds a fit, mean | longest | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, found in by_method:
        lines.append(
            f"| {method} | {found['ARI'].mean():.3f} | {found['ARI'].min():.3f} | {found['NMI'].mean():.3f} "
            f"| {found['seconds'].mean():.0f} | {found['seconds'].max():.0f} | {n_seeds} |"
        )
    (RESULTS / "pbmc3k.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
