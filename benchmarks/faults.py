"""Faults that are planted in real cells: how many of them `quality_control` names, and what it says of clean cells.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/faults.py

A GMVAE at its defaults, for each of the labelled sets. No label is read. Faults:

- doublets: 5 % of the cells are sums of two random cells (some of them of one cluster, which cannot be found);
- ambient RNA: 20 % of the counts of each cell have the mean profile of all cells;
- batch: in half of the cells, each gene is multiplied by a factor (log-normal, sigma 0.7), and the model does not know;
- merged: the tree is cut at one cluster fewer than it has by default.

Adds a line to benchmarks/results/faults.csv for each fit, goes on where it ended, and writes faults.md.
"""

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
from clustering import RESULTS, SETS, load

import mixvi

SAID = {
    "doublets": "look like doublets of two", "ambient RNA": "ambient RNA", "batch": "effect of run",
    "merged": "several types",
}  # fmt: skip


def planted(cells, fault, rng):
    """The cells with a fault; a column "run" says which of them have other factors, or is random."""
    x, n = cells.X.tocsr(), cells.n_obs
    run = rng.random(n) < 0.5
    if fault == "doublets":
        a, b = rng.integers(n, size=(2, round(0.05 * n)))
        x, run = sp.vstack([x, x[a] + x[b]], "csr"), np.r_[run, run[a]]
    elif fault == "ambient RNA":
        mean, total = np.asarray(x.sum(0)).ravel(), np.asarray(x.sum(1)).ravel()
        x = x + sp.csr_matrix(rng.poisson(np.outer(total * 0.2 / 0.8, mean / mean.sum())))
    elif fault == "batch":
        x = x.toarray()
        x[run] = rng.poisson(x[run] * rng.lognormal(0, 0.7, x.shape[1]))
        x = sp.csr_matrix(x)
    found = ad.AnnData(x.astype(np.float32), var=cells.var[[]])
    found.obs["run"] = np.where(run, "b", "a")
    return found[np.asarray(found.X.sum(1)).ravel() > 0].copy()


def main():
    """Run what is missing, and write the table."""
    path = RESULTS / "faults.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["set", "fault"])
    for name in SETS:
        for fault in ("none", "doublets", "ambient RNA", "batch"):
            if ((done["set"] == name) & (done["fault"] == fault)).any():
                continue
            scvi.settings.seed = 0
            cells = planted(load(name), fault, np.random.default_rng(0))
            mixvi.GMVAE.setup_anndata(cells)
            model = mixvi.GMVAE(cells)
            model.train(enable_progress_bar=False, accelerator="cpu")
            rows = [row(name, fault, model.quality_control("run"))]
            if fault == "none" and model.n_clusters > 1:
                rows.append(row(name, "merged", model.quality_control("run", model.n_clusters - 1)))
            print(pd.DataFrame(rows).to_string(header=False), flush=True)
            pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), index=False)
    write(pd.read_csv(path))


def row(name, fault, found):
    """What was said."""
    said = [key for key, words in SAID.items() if any(words in text for text in found.faults)]
    return {
        "set": name, "fault": fault, "clusters": len(found.clusters), "doublets": round(found.doublets, 4),
        "ambient": round(found.ambient, 4), "said": ", ".join(said), "faults": " ".join(found.faults),
    }  # fmt: skip


def write(rows):
    """Estimates and what was named, by set."""
    lines = ["| set | planted | clusters | doublets | ambient RNA | named |", "|---" * 6 + "|"]
    for values in rows.fillna("").itertuples():
        others = "" if values.said or not values.faults else "other"
        shares = f"{values.doublets:.1%} | {values.ambient:.1%}"
        lines.append(f"| {values.set} | {values.fault} | {values.clusters} | {shares} | {values.said or others} |")
    (RESULTS / "faults.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
