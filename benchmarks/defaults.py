"""How long to train and how fast to warm up, chosen without a look at any label.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/defaults.py

A GMVAE that finds its own number of clusters trains on nine tenths of 2,000 cells of three sets; what it is worth is
the evidence bound of the others. The rule, written before the first run: of the lengths, the shortest whose best
held-out bound, over the warm-ups, is on average over the sets within 0.1 % of the best; of the warm-ups, at that
length, the one with the highest bound on average over the sets, as a share of the best. Finished fits are kept in
benchmarks/results/defaults.csv, so that the command can be stopped and taken up again.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

import mixvi

RESULTS = Path(__file__).parent / "results"
SETS = ("scdcc_10x_pbmc", "zheng_facs10_pbmc", "paul15")
LENGTHS = (100, 200, 400)  # epochs
WARMUPS = (0.0, 0.1, 0.5)  # share of the run
N_CELLS = 2000
N_SAMPLES = 20  # of the posterior, to score with
TOLERANCE = 1e-3


def load(name):
    """Counts of the 2,000 most variable genes in cells drawn at random."""
    adata = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")
    adata = adata[np.random.default_rng(0).choice(adata.n_obs, N_CELLS, replace=False)].copy()
    sc.pp.filter_genes(adata, min_cells=3)
    if adata.n_vars > 2000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000, flavor="seurat_v3", subset=True)
    return adata


def held_out_elbo(adata, epochs, warmup, seed=0):
    """Nats a cell, of cells that did not train."""
    scvi.settings.seed = seed
    mixvi.GMVAE.setup_anndata(adata)
    model = mixvi.GMVAE(adata)
    plan = {"n_epochs_kl_warmup": max(round(warmup * epochs), 1)}
    model.train(max_epochs=epochs, plan_kwargs=plan, accelerator="cpu", enable_progress_bar=False)
    return np.mean([model.get_elbo(indices=model.validation_indices) for _ in range(N_SAMPLES)])


def choose(table):
    """The rule of the module's docstring."""
    scores = table.set_index(["set", "epochs", "warmup"])["elbo"]
    best = scores.groupby("set").max()
    loss = ((best - scores) / best.abs()).groupby(["epochs", "warmup"]).mean()  # share of the best, mean over sets
    by_length = loss.groupby("epochs").min()
    epochs = by_length[by_length <= by_length.min() + TOLERANCE].index.min()
    return epochs, loss[epochs].idxmin(), loss


def main():
    """Run what is missing, and write the tables."""
    path = RESULTS / "defaults.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["set"], row["epochs"], row["warmup"]) for row in rows}
    for name in SETS:
        adata = load(name)
        for epochs in LENGTHS:
            for warmup in WARMUPS:
                if (name, epochs, warmup) not in done:
                    elbo = held_out_elbo(adata, epochs, warmup)
                    rows.append({"set": name, "epochs": epochs, "warmup": warmup, "elbo": round(elbo, 3)})
                    pd.DataFrame(rows).to_csv(path, index=False)
                    print(rows[-1], flush=True)
    write_summary(pd.DataFrame(rows))


def write_summary(table):
    """Held-out bound by set, and what the rule takes."""
    epochs, warmup, loss = choose(table)
    wide = table.pivot(index=["epochs", "warmup"], columns="set", values="elbo")
    names = ("mixvi", "scvi-tools", "scanpy", "torch")
    lines = [
        "# Length of training and warm-up, by held-out evidence bound",
        "",
        f"`python benchmarks/defaults.py`, one seed, {platform.machine()}, "
        + ", ".join(f"{n} {version(n)}" for n in names)
        + ". Nats a cell, higher is better.",
        "",
        f"| epochs | warm-up | {' | '.join(wide.columns)} | mean loss to the best |",
        "|---" * (len(wide.columns) + 3) + "|",
    ]
    for (e, w), values in wide.iterrows():
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {e} | {w:.0%} | {cells} | {loss[e, w]:.2%} |")
    lines += ["", f"The rule takes {epochs} epochs and a warm-up of {warmup:.0%} of the run."]
    (RESULTS / "defaults.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
