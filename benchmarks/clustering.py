"""Clusters of real cells: GMVAE against PCA, Pearson residuals and scVI, each with k-means and with Leiden.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/clustering.py --seeds 5

All methods get the raw counts of the same 2,000 most variable genes, and the true number of clusters (GMVAE also infers
it). Leiden's resolution is searched for that number. Labels score, once, what is finished. Adds a line to
benchmarks/results/clustering.csv for each result, goes on where it ended, and writes .md and .png from what is there.
"""

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import mixvi
from mixvi import cluster

RESULTS = Path(__file__).parent / "results"
SETS = ("zheng_facs10_pbmc", "scdcc_10x_pbmc", "pbmc3k", "scdcc_mouse_bladder", "paul15")
KANG = "kang_pbmc"
N_PCS = 30
SCVI_EPOCHS = 120


def load(name):
    """Counts of the most variable genes, and the annotation."""
    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")
    if name == KANG:
        cells = cells[(cells.obs["condition"] == "control") & (cells.obs["cell_type"] != "unassigned")].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    cells.layers["counts"] = cells.X.copy()
    if cells.n_vars > 2000:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3")
    else:
        cells.var["highly_variable"] = True
    return cells


def principal_components(cells, seed):
    """Of log-normalised counts, the total taken over all genes."""
    work = cells.copy()
    sc.pp.normalize_total(work, target_sum=1e4)
    sc.pp.log1p(work)
    sc.pp.pca(work, n_comps=N_PCS, mask_var="highly_variable", random_state=seed)
    return work.obsm["X_pca"]


def residual_components(cells, seed):
    """Of Pearson residuals."""
    work = cells[:, cells.var["highly_variable"]].copy()
    sc.experimental.pp.normalize_pearson_residuals(work)
    sc.pp.pca(work, n_comps=N_PCS, random_state=seed)
    return work.obsm["X_pca"]


def scvi_latent(cells, seed):
    """SCVI at its defaults, but for the likelihood and the number of epochs."""
    work = cells[:, cells.var["highly_variable"]].copy()
    scvi.model.SCVI.setup_anndata(work, layer="counts")
    model = scvi.model.SCVI(work, gene_likelihood="nb")
    model.train(SCVI_EPOCHS, enable_progress_bar=False)
    return model.get_latent_representation()


def run(method, cells, k, seed):
    """Clusters by name, and the probabilities (n, K) of each cell where the method says them."""
    if method.startswith("GMVAE"):
        work = cells[:, cells.var["highly_variable"]].copy()
        mixvi.GMVAE.setup_anndata(work, layer="counts")
        model = mixvi.GMVAE(work, n_clusters=None if "inferred" in method else k)
        model.train(enable_progress_bar=False)
        table = model.predict(soft=True).to_numpy()
        return {method: table.argmax(1)}, table
    latent = LATENTS[method](cells, seed)
    return {
        f"{method} + Leiden": cluster.partition(cluster.neighbor_graph(latent, seed), k, seed),
        f"{method} + k-means": KMeans(k, n_init=10, random_state=seed).fit_predict(latent),
    }, None


LATENTS = {"PCA": principal_components, "Pearson residuals": residual_components, "scVI": scvi_latent}
METHODS = ("GMVAE", "GMVAE, K inferred", *LATENTS)


def score(labels, clusters, probabilities):
    """All that is asked of a clustering."""
    table = pd.crosstab(labels, clusters)
    match = linear_sum_assignment(-table.to_numpy())
    best = table.idxmax().loc[clusters].to_numpy() == labels  # right by the label of the cluster's majority
    confidence = None if probabilities is None else label_confidence(labels, clusters, probabilities)
    return {
        "found": table.shape[1],
        "ARI": adjusted_rand_score(labels, clusters),
        "NMI": normalized_mutual_info_score(labels, clusters),
        "accuracy": table.to_numpy()[match].sum() / len(labels),
        "majority": best.mean(),
        "missed": ", ".join(kind for kind in table.index if kind not in set(table.idxmax())),
        "confidence": np.nan if confidence is None else confidence.mean(),
        "ECE": np.nan if confidence is None else calibration_error(confidence, best),
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="*", default=[*SETS, KANG])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--name", default="clustering")
    args = parser.parse_args()
    path = RESULTS / f"{args.name}.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["set", "seed", "run"])
    for name in args.sets:
        cells = load(name)
        labels = cells.obs["cell_type"].astype(str).to_numpy()
        k = 10 if name == KANG else len(np.unique(labels))
        for seed in range(args.seeds):
            for method in args.methods:
                if ((done["set"] == name) & (done["seed"] == seed) & (done["run"] == method)).any():
                    continue
                scvi.settings.seed = seed
                start = time.monotonic()
                found, probabilities = run(method, cells, k, seed)
                seconds = time.monotonic() - start
                rows = [
                    {"set": name, "seed": seed, "run": method, "method": key, "K": k, "seconds": round(seconds, 1)}
                    | score(labels, clusters, probabilities)
                    for key, clusters in found.items()
                ]
                print(pd.DataFrame(rows)[["set", "seed", "method", "found", "ARI"]].to_string(header=False), flush=True)
                pd.DataFrame(rows).round(4).to_csv(path, mode="a", header=not path.exists(), index=False)
    write_summary(pd.read_csv(path), args.name)


def write_summary(frame, name):
    """Mean and minimum of each method on each set, and a picture."""
    table = frame[frame["set"] != KANG]
    by_set = table.pivot_table(index="method", columns="set", values="ARI", aggfunc=["mean", "min", "count"])
    order = by_set["mean"].mean(axis=1).sort_values(ascending=False).index
    sets = [s for s in SETS if s in by_set["mean"]]
    lines = [f"| ARI, mean (min) over seeds | {' | '.join(sets)} | mean | seeds |", "|---" * (len(sets) + 3) + "|"]
    for method in order:
        row = by_set.loc[method]
        cells = [f"{row['mean', s]:.3f} ({row['min', s]:.3f})".replace("nan (nan)", "-") for s in sets]
        n_seeds = sorted({int(n) for n in row["count"].fillna(0)})
        seeds = " to ".join(map(str, dict.fromkeys((n_seeds[0], n_seeds[-1]))))
        mean = f"**{row['mean'].mean():.3f}**" if n_seeds[0] else "-"
        lines.append(f"| {method} | {' | '.join(cells)} | {mean} | {seeds} |")
    columns = ["found", "NMI", "accuracy", "majority", "confidence", "ECE", "seconds"]
    means = table.groupby("method")[columns].mean().loc[order]
    lines += ["", f"| mean over sets and seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {method} | {' | '.join(f'{value:.3g}' for value in row)} |".replace("nan", "-")
        for method, row in means.iterrows()
    ]
    if len(kang := frame[frame["set"] == KANG]):
        lines += ["", "| Kang, control cells, 10 clusters | majority label, mean | min | types of no cluster | seeds |"]
        lines += ["|---|---|---|---|---|"]
        for method, found in sorted(kang.groupby("method"), key=lambda item: -item[1]["majority"].mean()):
            missed = pd.Series(", ".join(found["missed"].dropna()).split(", ")).value_counts()
            missed = ", ".join(f"{kind} ({n})" for kind, n in missed.items() if kind)
            lines.append(
                f"| {method} | {found['majority'].mean():.3f} | {found['majority'].min():.3f} | {missed or 'none'} "
                f"| {len(found)} |"
            )
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    for i, method in enumerate(order):
        for j, s in enumerate(sets):
            values = table[(table["method"] == method) & (table["set"] == s)]["ARI"]
            x = np.full(len(values), j + (i - len(order) / 2) * 0.09)
            ax.plot(x, values, "o", ms=4, color=f"C{i}", label=method if j == 0 else None)
    ax.set(xticks=range(len(sets)), ylabel="adjusted Rand index", ylim=(0, 1))
    ax.set_xticklabels([s.replace("_", "\n") for s in sets])
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
