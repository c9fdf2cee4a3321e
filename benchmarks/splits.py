"""False and missed splits: how often GMVAE splits one population, and which rarer populations it finds.

    MIXVI_DATA_DIR=... uv run python benchmarks/splits.py --null 100 --power 3

``--null``: so many simulated sets of 1,000 cells x 500 genes of each kind of one population; a set with more than one
cluster is a false split. "B cells" draws from the mean profile of sorted B cells at their own library sizes. "grade" is
one smooth gradient, in which a third of the genes change fourfold: its splits are real, and must be marked as grades.

``--power``: 1,000 cells beside a rarer population that differs in some genes by a factor. Found: one of several
clusters has a Jaccard index of 1/2 or more with it. Leiden at resolution 1 on principal components is asked the same.
A t test on the truth says in how many genes both differ at a false discovery rate of 5 %.

Adds lines to benchmarks/results/splits_*.csv, goes on where it ended, and writes benchmarks/results/splits.md.
"""

import argparse
import logging
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy.stats import false_discovery_control, ttest_ind

import mixvi

RESULTS = Path(__file__).parent / "results"
N_CELLS, N_GENES, LIBRARY = 1000, 500, 1000
SHORT = 40  # epochs for one population: the evidence needs no training, and 100 sets of each kind take long
NULLS = ("Poisson", "NB 10", "NB 2", "NB 0.5", "library sizes", "two batches", "B cells", "grade")
POWER = [(genes, fold, rare) for genes in (20, 50, 200) for fold in (1.5, 2.0, 4.0) for rare in (30, 100, 300, 1000)]


def profile(rng):
    """Shares (g,) of genes that are not alike."""
    return rng.dirichlet(np.full(N_GENES, 0.5))


def null(kind, seed):
    """Counts of one population, and its batches."""
    rng = np.random.default_rng(seed)
    share, library, batch = profile(rng), np.full(N_CELLS, float(LIBRARY)), np.arange(N_CELLS) % 2
    if kind == "B cells":
        cells = sorted_b_cells()
        return rng.poisson(cells.sum(1, keepdims=True) * cells.sum(0) / cells.sum()), batch
    if kind == "library sizes":
        library = LIBRARY * 10 ** rng.uniform(-0.5, 0.5, N_CELLS)
    mean = library[:, None] * share
    if kind == "two batches":
        other = share * np.exp(rng.normal(0, 0.5, N_GENES))
        mean[batch == 1] = LIBRARY * other / other.sum()
    if kind == "grade":
        slope = (rng.random(N_GENES) < 1 / 3) * rng.choice([-1, 1], N_GENES) * np.log(4)
        mean = share * np.exp(rng.random((N_CELLS, 1)) * slope)
        mean *= LIBRARY / mean.sum(1, keepdims=True)
    if kind.startswith("NB"):
        theta = float(kind.split()[1])
        mean = rng.gamma(theta, mean / theta)
    return rng.poisson(mean), batch


def sorted_b_cells():
    """Counts of the 500 most frequent genes in B cells that were sorted by an antibody."""
    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / "zheng_facs10_pbmc.h5ad")
    counts = cells[cells.obs["cell_type"] == "CD19+ B"].X.toarray()
    return counts[:, np.argsort(-counts.sum(0))[:N_GENES]]


def fit(counts, batch=None, seed=0, max_epochs=None):
    """A trained GMVAE."""
    cells = ad.AnnData(counts.astype(np.float32))
    if batch is not None:
        cells.obs["batch"] = batch.astype(str)
    scvi.settings.seed = seed
    mixvi.GMVAE.setup_anndata(cells, batch_key=None if batch is None else "batch")
    model = mixvi.GMVAE(cells)
    model.train(max_epochs, enable_progress_bar=False, accelerator="cpu")
    return model


def false_splits(kind, seed):
    """Clusters of one population, and how the splits between them are marked."""
    counts, batch = null(kind, seed)
    model = fit(counts, batch if kind == "two batches" else None, seed, None if kind == "grade" else SHORT)
    kinds = [split.kind for split in model.tree.splits if split.kept]
    return {"clusters": model.n_clusters, "grades": kinds.count("grade"), "splits": len(kinds)}


def power(genes, fold, rare, seed):
    """Whether the rarer of two populations is found."""
    rng = np.random.default_rng(seed)
    share = profile(rng)
    other = share.copy()
    other[rng.choice(np.flatnonzero(share > 1e-4), genes, replace=False)] *= fold
    truth = np.arange(N_CELLS + rare) >= N_CELLS
    counts = rng.poisson(LIBRARY * np.where(truth[:, None], other / other.sum(), share))
    cells = ad.AnnData(counts.astype(np.float32))
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    p = np.nan_to_num(ttest_ind(cells.X[truth], cells.X[~truth], equal_var=False).pvalue, nan=1.0)
    sc.pp.pca(cells, n_comps=30)
    sc.pp.neighbors(cells, random_state=seed)
    sc.tl.leiden(cells, 1.0, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    model = fit(counts, seed=seed)
    found = {"GMVAE": model.predict(), "Leiden": cells.obs["leiden"].to_numpy()}
    row = {"t test": int((false_discovery_control(p) < 0.05).sum())}
    for name, clusters in found.items():
        both = [((clusters == c) & truth).sum() / ((clusters == c) | truth).sum() for c in set(clusters)]
        row |= {f"{name} found": max(both) >= 0.5 and len(both) > 1, f"{name} clusters": len(set(clusters))}
    return row


def collect(path, tasks, run):
    """Run what is not in the file yet, and add it."""
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["task", "seed"])
    done = set(done[["task", "seed"]].astype(str).itertuples(index=False, name=None))
    for task, seed, arguments in tasks:
        if (task, str(seed)) in done:
            continue
        row = {"task": task, "seed": seed} | run(*arguments, seed)
        print(row, flush=True)
        pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["task", "seed"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", type=int, default=100)
    parser.add_argument("--power", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("mixvi").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    tasks = [(kind, seed, (kind,)) for seed in range(args.null) for kind in NULLS]
    nulls = collect(RESULTS / "splits_null.csv", tasks, false_splits)
    lines = ["| one population | sets | one cluster | clusters, mean | splits marked as grades |", "|---" * 5 + "|"]
    for kind, rows in nulls.groupby("task", sort=False):
        grades = f"{rows['grades'].sum()} of {rows['splits'].sum()}" if rows["splits"].sum() else "-"
        one = (rows["clusters"] == 1).sum()
        lines.append(f"| {kind} | {len(rows)} | {one} | {rows['clusters'].mean():.2f} | {grades} |")
    names = [(f"{genes} genes, {fold:g} times", rare) for genes, fold, rare in POWER]
    tasks = [(f"{n}, {r} cells", s, a) for s in range(args.power) for (n, r), a in zip(names, POWER, strict=True)]
    found = collect(RESULTS / "splits_power.csv", tasks, power)
    lines += ["", "| two populations | sets | found by GMVAE | by Leiden | genes by a t test on the truth | clusters |"]
    lines += ["|---" * 6 + "|"]
    for task, rows in found.groupby("task", sort=False):
        clusters = f"{rows['GMVAE clusters'].mean():.1f}, Leiden {rows['Leiden clusters'].mean():.1f}"
        lines.append(
            f"| {task} | {len(rows)} | {rows['GMVAE found'].sum()} | {rows['Leiden found'].sum()} "
            f"| {rows['t test'].mean():.0f} | {clusters} |"
        )
    (RESULTS / "splits.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
