"""How long a GMVAE trains: bound on held-out cells by default, and after fixed numbers of epochs.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/length.py --seeds 2

By default, pretraining ends when the bound on held-out cells settles, and joint training is as long. This is compared
with 25, 50, 100 and 200 epochs, half of them pretraining. Sets that no other table scores the clusters of: the cells of
the demo, 2,000 of pbmc4k, 2,000 of Kang's stimulated cells, Kang's control cells of five donors, and all cells of
pbmc_3tech with their batches. No label is read.

Adds a line to benchmarks/results/length.csv for each fit, goes on where it ended, and writes length.md.
"""

import argparse
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

import mixvi

RESULTS = Path(__file__).parent / "results"
LENGTHS = (None, 25, 50, 100, 200)
N_SAMPLES = 10  # of the posterior, for the bound of a cell


def some(cells, n=2000):
    """At most n random cells, and their 2,000 most variable genes."""
    cells = cells[np.random.default_rng(0).permutation(cells.n_obs)[:n]].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    if cells.n_vars > 2000:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3", subset=True)
    return cells


def read(name):
    """Cells of a file."""
    return ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")


def demo():
    """The 700 cells of the demo, with their counts."""
    cells = mixvi.datasets.pbmc68k_reduced()
    cells.X = cells.layers["counts"]
    return cells


def of(cells, column, value):
    """The cells with a value in a column of ``.obs``."""
    return cells[cells.obs[column] == value]


SETS = {
    "demo": demo,
    "pbmc4k": lambda: some(of(read("pbmc_3tech"), "batch", "pbmc4k_3p_v2")),
    "Kang, stimulated": lambda: some(of(read("kang_pbmc"), "condition", "stimulated")),
    "Kang, five donors": lambda: some(read("kang_ctrl_5donors_2511genes"), None),
    "pbmc_3tech": lambda: some(read("pbmc_3tech"), None),
}


def fit(cells, batch_key, epochs, seed):
    """Number of epochs, bound of a held-out cell in nats, and seconds."""
    scvi.settings.seed = seed
    mixvi.GMVAE.setup_anndata(cells, batch_key=batch_key)
    model = mixvi.GMVAE(cells)
    start = time.monotonic()
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    seconds = time.monotonic() - start
    bound = np.mean([model.get_elbo(indices=model.validation_indices) for _ in range(N_SAMPLES)])
    return {"trained": len(model.history["elbo_train"]), "bound": round(float(bound), 2), "seconds": round(seconds, 1)}


def main():
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    path = RESULTS / "length.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["set", "epochs", "seed"])
    finished = set(zip(done["set"], done["epochs"].astype(str), done["seed"], strict=True))
    for name, load in SETS.items():
        cells = load()
        for epochs in LENGTHS:
            for seed in range(args.seeds):
                row = {"set": name, "cells": cells.n_obs, "epochs": str(epochs or "default"), "seed": seed}
                if (name, row["epochs"], seed) not in finished:
                    row |= fit(cells, "batch" if name == "pbmc_3tech" else None, epochs, seed)
                    pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)
                    print(row, flush=True)
    write(pd.read_csv(path))


def write(rows):
    """Means over seeds: a column for each set, a line for each length."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("mixvi", "scvi-tools", "torch"))
    n_seeds = rows["seed"].nunique()
    lines = [
        f"{n_seeds} seed{'s' if n_seeds > 1 else ''}, {os.cpu_count()} cores, {platform.machine()}, {packages}.",
        "",
    ]
    names = [f"{name}, {n:,} cells" for name, n in rows.groupby("set", sort=False)["cells"].first().items()]
    lines += [f"| epochs | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for epochs, found in rows.groupby("epochs", sort=False):
        means = found.groupby("set", sort=False)[["trained", "bound", "seconds"]].mean()
        cells = [f"{row['bound']:.1f} ({row['seconds']:.0f} s)" for _, row in means.iterrows()]
        if epochs == "default":
            cells = [
                f"{row['bound']:.1f} ({row['trained']:.0f} epochs, {row['seconds']:.0f} s)"
                for _, row in means.iterrows()
            ]
        lines.append(f"| {epochs} | {' | '.join(cells)} |")
    (RESULTS / "length.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
