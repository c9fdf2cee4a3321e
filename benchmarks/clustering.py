"""Clusters of real cells: GMVAE and its parts, PCA and Pearson residuals with Leiden and k-means, and other methods.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/run.py clustering --seeds 5
    ... --methods ESCHR EVoC "Bayesian mixture" DRVI DEC IDEC VaDE

All methods get the raw counts of the same 2,000 most variable genes. Each is asked for the labels' number of clusters,
and once for a number of its own: GMVAE infers it, Leiden is run at resolution 1. One GMVAE gives both, as its tree is
cut twice. Cells labelled "unassigned" are left out. Labels score what is finished and choose nothing.
"""

import os
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rivals
import scanpy as sc
import scvi
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import mixvi

RESULTS = Path(__file__).parent / "results"
KANG = "kang_pbmc"
SETS = {
    "zheng_facs10_pbmc": "Zheng, sorted", "scdcc_10x_pbmc": "10x PBMC", "pbmc3k": "pbmc3k",
    "scdcc_mouse_bladder": "mouse bladder", "paul15": "paul15", KANG: "Kang, control",
}  # fmt: skip
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def load(name):
    """Counts of the most variable genes, and the annotation."""
    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")
    cells = cells[cells.obs["cell_type"] != "unassigned"].copy()
    if name == KANG:
        cells = cells[cells.obs["condition"] == "control"].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    sc.pp.filter_cells(cells, min_counts=1)
    if cells.n_vars > 2000:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3", subset=True)
    return cells


def principal_components(cells, seed):
    """Of log-normalised counts."""
    work = cells.copy()
    sc.pp.normalize_total(work, target_sum=1e4)
    sc.pp.log1p(work)
    sc.pp.pca(work, n_comps=rivals.N_PCS, random_state=seed)
    return work.obsm["X_pca"]


def residual_components(cells, seed):
    """Of Pearson residuals."""
    work = cells.copy()
    sc.experimental.pp.normalize_pearson_residuals(work)
    sc.pp.pca(work, n_comps=rivals.N_PCS, random_state=seed)
    return work.obsm["X_pca"]


def vae_latent(cells, seed):
    """Of a VAE with GMVAE's settings, trained as long."""
    mixvi.VAE.setup_anndata(cells)
    model = mixvi.VAE(cells)
    model.train(100, plan_kwargs={"lr": 4e-3}, **QUIET)
    return model.get_latent_representation()


def of_latent(name, latent, k, seed):
    """Leiden and k-means of a latent space: (method, number asked for, clusters, probabilities, rows)."""
    work = ad.AnnData(latent)
    sc.pp.neighbors(work, use_rep="X", random_state=seed)

    def leiden(resolution):
        sc.tl.leiden(work, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
        return work.obs["leiden"].astype(int).to_numpy()

    yield f"{name} + Leiden", "own", leiden(1.0), None, slice(None)
    low, high = np.log(1e-3), np.log(50)
    for _ in range(24):  # the resolution that gives k, or the nearest number there is
        found = leiden(np.exp((low + high) / 2))
        if found.max() + 1 == k:
            break
        low, high = (low, (low + high) / 2) if found.max() + 1 > k else ((low + high) / 2, high)
    yield f"{name} + Leiden", "true", found, None, slice(None)
    yield f"{name} + k-means", "true", KMeans(k, n_init=10, random_state=seed).fit_predict(latent), None, slice(None)


def of_gmvae(name, cells, k, guidance):
    """The two cuts of one tree, by the model and by the partition it started from (of its training cells)."""
    mixvi.GMVAE.setup_anndata(cells)
    model = mixvi.GMVAE(cells, guidance=guidance)
    model.train(**QUIET)
    rows, part = model.clusters_["rows"], model.clusters_["part"]
    for asked, n in (("own", None), ("true", k)):
        table = model.predict(soft=True, n_clusters=n).to_numpy()
        yield name, asked, table.argmax(1), table, slice(None)
        if guidance:
            leaf = model.tree.clusters.tree.cut(n or model.n_clusters)
            yield "partition alone", asked, leaf[part], None, rows


def results(method, cells, k, seed):
    """All results of one fit."""
    if method == "GMVAE":
        return of_gmvae(method, cells, k, 5.0)
    if method == "GMVAE without guidance":
        return of_gmvae(method, cells, k, 0.0)
    if method in rivals.RIVALS:
        return rivals.RIVALS[method](cells, k, seed)
    return of_latent(method, LATENTS[method](cells, seed), k, seed)


def run(name, method, seed):
    """Rows of one method on one set."""
    cells = load(name)
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    scvi.settings.seed = seed
    start = time.monotonic()
    rows = [
        {"method": found, "K": asked} | score(labels[some], clusters, probabilities)
        for found, asked, clusters, probabilities, some in results(method, cells, len(np.unique(labels)), seed)
    ]
    return [row | {"seconds": round(time.monotonic() - start, 1)} for row in rows]


LATENTS = {
    "PCA": principal_components, "Pearson residuals": residual_components, "VAE": vae_latent, "DRVI": rivals.drvi_latent
}  # fmt: skip
DEFAULT = ("GMVAE", "GMVAE without guidance", "PCA", "Pearson residuals", "VAE")
METHODS = (*DEFAULT, "DRVI", *rivals.RIVALS)


def score(labels, clusters, probabilities):
    """All that is asked of a clustering."""
    table = pd.crosstab(labels, clusters)
    right = table.idxmax().loc[clusters].to_numpy() == labels  # by the label of the cluster's majority
    confidence = None if probabilities is None else label_confidence(labels, clusters, probabilities)
    return {
        "found": table.shape[1],
        "ARI": adjusted_rand_score(labels, clusters),
        "NMI": normalized_mutual_info_score(labels, clusters),
        "types": len(set(table.idxmax())),
        "majority": right.mean(),
        "confidence": np.nan if confidence is None else confidence.mean(),
        "ECE": np.nan if confidence is None else calibration_error(confidence, right),
    }


def label_confidence(labels, clusters, probabilities):
    """Probability that a cell has the label of its cluster's majority: of all clusters that have this majority."""
    majority = pd.crosstab(labels, clusters).idxmax()
    majority = majority.reindex(range(probabilities.shape[1]))  # NaN for a cluster without a cell
    return (probabilities * (majority.to_numpy() == majority.loc[clusters].to_numpy()[:, None])).sum(1)


def calibration_error(confidence, right, n_bins=15):
    """Expected calibration error: |confidence - accuracy| of bins of confidence, weighted by their cells."""
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))


def summarise(frame):
    """Mean and minimum of each method on each set, and a picture."""
    sets = [s for s in SETS if s in set(frame["set"])]
    scored = [s for s in sets if s != KANG]
    lines = []
    for asked, title in (("true", "at the labels' number of clusters"), ("own", "at a number of its own")):
        table = frame[frame["K"] == asked].pivot_table(
            index="method", columns="set", values="ARI", aggfunc=["mean", "min", "count"]
        )
        order = table["mean"][scored].mean(axis=1).sort_values(ascending=False).index
        lines += [
            f"| ARI {title}, mean (min) over seeds | {' | '.join(SETS[s] for s in sets)} | mean of five | seeds |"
        ]
        lines += ["|---" * (len(sets) + 3) + "|"]
        for method in order:
            row = table.loc[method]
            if row["mean"].isna().any():
                continue  # not run on all sets
            values = " | ".join(f"{row['mean', s]:.3f} ({row['min', s]:.3f})" for s in sets)
            seeds = sorted({int(n) for n in row["count"]})
            lines.append(f"| {method} | {values} | **{row['mean'][scored].mean():.3f}** | {seeds[0]} |")
        lines.append("")
    own = frame[frame["K"] == "own"]
    n_types = own.groupby(["method", "set"])[["found", "types", "ARI", "confidence", "ECE"]].mean()
    lines += [
        "| at a number of its own | " + " | ".join(SETS[s] for s in sets) + " | ECE | seconds |",
        "|---" * (len(sets) + 3) + "|",
    ]
    for method in n_types.index.get_level_values(0).unique():
        row = n_types.loc[method]
        if len(row) < len(sets):
            continue
        cells = " | ".join(f"{row.loc[s, 'found']:.1f} clusters, {row.loc[s, 'types']:.1f} types" for s in sets)
        seconds = frame[frame["method"] == method]["seconds"].mean()
        lines.append(f"| {method} | {cells} | {row['ECE'].mean():.3f} | {seconds:.0f} |".replace("nan", "-"))
    (RESULTS / "clustering.md").write_text("\n".join(lines) + "\n")
    figure, axes = plt.subplots(2, 1, figsize=(9, 7), layout="constrained", sharex=True)
    for ax, (asked, title) in zip(axes, (("true", "number of the labels"), ("own", "number of its own")), strict=True):
        methods = frame[frame["K"] == asked].groupby("method")["ARI"].mean().sort_values(ascending=False).index
        for i, method in enumerate(methods):
            for j, s in enumerate(sets):
                some = frame[(frame["method"] == method) & (frame["set"] == s) & (frame["K"] == asked)]
                x = np.full(len(some), j + (i - len(methods) / 2) * 0.09)
                color = f"C{sorted(frame['method'].unique()).index(method)}"
                ax.plot(x, some["ARI"], "o", ms=4, color=color, label=method if j == 0 else None)
        ax.set(xticks=range(len(sets)), ylabel="adjusted Rand index", ylim=(0, 1), title=title)
        ax.set_xticklabels([SETS[s].replace(" ", "\n") for s in sets])
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(RESULTS / "clustering.png", dpi=120)
