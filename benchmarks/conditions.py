"""A GMVAE that is told types and condition of Kang's cells: it names new cells, and makes cells that look real.

    MIXVI_DATA_DIR=... uv run python benchmarks/conditions.py --seeds 5

Naming: five folds; the labels of four fifths of the cells train, ``predict`` names the others, which it has not seen.
Beside it logistic regression on 50 principal components of the same cells. Making: cells of each type and condition are
drawn from a model of all cells (library sizes of the real ones), and a 15-nearest-neighbour classifier, cross-validated
on 50 principal components of real and drawn cells together, tries to tell them apart; 0.5 is chance. Writes
benchmarks/results/conditions.csv and .md.
"""

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mixvi
from mixvi.perturb import expression

RESULTS = Path(__file__).parent / "results"
TYPES = ["B", "CD4 T", "CD8 T", "NK", "CD14+ Mono", "FCGR3A+ Mono", "Dendritic"]
SETUP = {"batch_key": "condition", "labels_key": "cell_type"}


def fit(cells, seed, epochs):
    scvi.settings.seed = seed
    mixvi.GMVAE.setup_anndata(cells, **SETUP)
    model = mixvi.GMVAE(cells, n_latent=30)
    model.train(epochs, train_size=1.0, enable_progress_bar=False)
    return model


def name(cells, seed, epochs):
    """Accuracy on cells of the fold that is left out, of GMVAE and of logistic regression."""
    truth, x = cells.obs["cell_type"].astype(str).to_numpy(), expression(cells)
    right = {"GMVAE": np.zeros(len(truth), bool), "logistic regression": np.zeros(len(truth), bool)}
    for seen, new in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, truth):
        model = fit(cells[seen].copy(), seed, epochs)
        right["GMVAE"][new] = model.predict(cells[new].copy()) == truth[new]
        regression = make_pipeline(PCA(50, random_state=seed), StandardScaler(), LogisticRegression(max_iter=2000))
        right["logistic regression"][new] = regression.fit(x[seen], truth[seen]).predict(x[new]) == truth[new]
    return {method: found.mean() for method, found in right.items()}


def make(cells, seed, epochs):
    """Accuracy of telling drawn cells from real ones, mean over types, both conditions apart."""
    model = fit(cells, seed, epochs)
    found = []
    for (cell_type, _), rows in cells.obs.groupby(["cell_type", "condition"], observed=True).indices.items():
        drawn = model.sample(len(rows), component=cell_type, indices=rows, seed=seed)
        both = ad.concat([cells[rows], drawn], index_unique="-")
        z = PCA(min(50, len(rows) - 1), random_state=seed).fit_transform(expression(both))
        is_real = np.repeat([True, False], len(rows))
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        score = cross_val_score(KNeighborsClassifier(15), z, is_real, cv=folds).mean()
        found.append({"cell_type": cell_type, "score": score})
    return pd.DataFrame(found).groupby("cell_type")["score"].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args()
    cells = mixvi.datasets.kang()
    cells = cells[cells.obs["cell_type"].isin(TYPES)].copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.remove_unused_categories()
    sc.pp.filter_genes(cells, min_cells=3)
    rows = []
    for seed in range(args.seeds):
        by_type = make(cells, seed, args.epochs)
        rows += [{"figure": f"told from real: {kind}", "seed": seed, "value": value} for kind, value in by_type.items()]
        rows.append({"figure": "told from real: mean over types", "seed": seed, "value": by_type.mean()})
        rows += [
            {"figure": f"named: {method}", "seed": seed, "value": value}
            for method, value in name(cells, seed, args.epochs).items()
        ]
        print(pd.DataFrame(rows).tail(10), flush=True)
        pd.DataFrame(rows).round(4).to_csv(RESULTS / "conditions.csv", index=False)
    table = pd.DataFrame(rows).groupby("figure", sort=False)["value"].agg(["mean", "min", "max", "size"])
    lines = [
        f"Kang 2018, {cells.n_obs:,} cells of seven types, {args.epochs} epochs.",
        "",
        "| figure | mean | min | max | seeds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {figure} | {row['mean']:.3f} | {row['min']:.3f} | {row['max']:.3f} | {row['size']:.0f} |"
        for figure, row in table.iterrows()
    ]
    (RESULTS / "conditions.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
