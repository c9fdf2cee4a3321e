"""New cells: like nothing seen, and labels carried over to another batch.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/query.py --seeds 1

*Left out.* One type of more than 50 cells is left out of the reference. Its cells, and reference cells that no method
was trained on, are one query. The score is the AUROC by which a method tells them apart. False alarms are the share of
the reference cells with p < 0.05, by quartile of depth.

*Carried over.* One batch is the query, the others are the labelled reference. Scores are the accuracy on its cells, the
calibration error, the coverage and mean size of sets with a promised coverage of 90 %, and the accuracy when genes of
the query are missing.

Labels score and choose nothing. Finished rows are kept in benchmarks/results/query_*.csv, so that the command can be
stopped and taken up again. ``--methods`` adds SCVI and SCANVI, which take about ten times as long as the others.
"""

import argparse
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from clustering import calibration_error
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import mixvi

RESULTS = Path(__file__).parent / "results"
SETS = {"zheng_facs10_pbmc": None, "pbmc_3tech": "batch", "kang_pbmc": "condition", "pancreas_panc8_500": "batch"}
N_PCS, N_NEIGHBORS = 30, 15
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
UNKNOWN = "unlabeled"
MISSING = (0.1, 0.2, 0.5)
METHODS = ("GMVAE", "PCA neighbours", "logistic regression")


def load(name):
    """Labelled cells with the 2,000 most variable genes."""
    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / f"{name}.h5ad")
    cells = cells[cells.obs["cell_type"] != "unassigned"].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    if cells.n_vars > 2000:
        sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3", subset=True)
    sc.pp.filter_cells(cells, min_counts=1)
    for key in ("cell_type", "batch", "condition"):
        if key in cells.obs:
            cells.obs[key] = cells.obs[key].astype(str)
    cells.X = cells.X.tocsr()
    return cells


def log_normalised(cells):
    """Dense log(1 + counts per 10,000)."""
    work = cells.copy()
    sc.pp.normalize_total(work, target_sum=1e4)
    sc.pp.log1p(work)
    return work.X.toarray()


def gmvae(reference, batch, labels, seed):
    """Trained on the reference."""
    scvi.settings.seed = seed
    setup = {"labels_key": "cell_type", "unlabeled_category": UNKNOWN} if labels else {}
    mixvi.GMVAE.setup_anndata(reference, batch_key=batch, **setup)
    model = mixvi.GMVAE(reference)
    model.train(**QUIET)
    return model


def surprise(method, reference, others, batch, seed):
    """A score for each group of other cells, higher if they are less like the reference; and p-values, or None."""
    if method == "GMVAE":
        model = gmvae(reference.copy(), batch, False, seed)
        p = model.map(ad.concat(others)).get_outlier_p()  # one query of known and new cells
        p = np.split(p, [others[0].n_obs])
        return [-values for values in p], p
    if method in ("SCVI neighbours", "SCANVI"):
        return scvi_surprise(method, reference.copy(), others, batch, seed), None
    pca = PCA(N_PCS, random_state=seed).fit(log_normalised(reference))
    known, new = pca.transform(log_normalised(reference)), [pca.transform(log_normalised(cells)) for cells in others]
    if method == "PCA neighbours":
        return neighbour_distances(known, new), None
    classifier = LogisticRegression(max_iter=1000).fit(known, reference.obs["cell_type"])
    return [1 - classifier.predict_proba(latent).max(1) for latent in new], None


def neighbour_distances(known, new):
    """Mean distance to the nearest reference cells."""
    index = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(known)
    return [index.kneighbors(latent)[0].mean(1) for latent in new]


def scvi_surprise(method, reference, others, batch, seed):
    """Of scvi-tools' models, at their defaults."""
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(reference, batch_key=batch)
    model = scvi.model.SCVI(reference)
    model.train(**QUIET)
    if method == "SCVI neighbours":
        return neighbour_distances(
            model.get_latent_representation(), [model.get_latent_representation(cells.copy()) for cells in others]
        )
    model = scvi.model.SCANVI.from_scvi_model(model, UNKNOWN, labels_key="cell_type", adata=reference)
    model.train(**QUIET)
    return [1 - model.predict(relabelled(cells), soft=True).to_numpy().max(1) for cells in others]


def relabelled(cells):
    """A copy without labels."""
    cells = cells.copy()
    cells.obs["cell_type"] = UNKNOWN
    return cells


def left_out(name, seed, methods, done):
    """Rows of one set: each type in turn is left out of the reference."""
    cells, batch = load(name), SETS[name]
    label, counts = cells.obs["cell_type"].to_numpy(), cells.obs["cell_type"].value_counts()
    for kind in counts.index[counts > 50]:
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(label != kind))
        test, train = rows[: len(rows) // 5], np.sort(rows[len(rows) // 5 :])
        reference, known, new = cells[train].copy(), cells[test].copy(), cells[label == kind].copy()
        if batch is not None:  # cells of batches that the reference has
            new = new[new.obs[batch].isin(reference.obs[batch].unique())].copy()
        quartile = pd.qcut(np.asarray(known.X.sum(1)).ravel(), 4, labels=False)
        for method in methods:
            if (name, kind, method, seed) in done:
                continue
            (of_known, of_new), p = surprise(method, reference, (known, new), batch, seed)
            truth = np.r_[np.zeros(len(of_known)), np.ones(len(of_new))]
            row = {"set": name, "type": kind, "method": method, "seed": seed, "cells": new.n_obs}
            row["auroc"] = round(roc_auc_score(truth, np.r_[of_known, of_new]), 4)
            if p is not None:
                row |= {f"alarms {i + 1}": round((p[0] < 0.05)[quartile == i].mean(), 4) for i in range(4)}
                row["power"] = round((p[1] < 0.05).mean(), 4)
            yield row


def carried_over(name, seed, methods, done):
    """Rows of one set: each batch in turn is the query. Of Kang's cells, the stimulated ones."""
    cells, batch = load(name), SETS[name]
    queries = ["stimulated"] if name == "kang_pbmc" else sorted(cells.obs[batch].unique())
    for query in queries:
        of_query = (cells.obs[batch] == query).to_numpy()
        reference, new = cells[~of_query].copy(), cells[of_query].copy()
        new = new[new.obs["cell_type"].isin(reference.obs["cell_type"].unique())].copy()
        for method in methods:
            if method.startswith("SC") or (name, query, method, seed) in done:
                continue
            row = {"set": name, "query": query, "method": method, "seed": seed, "cells": new.n_obs}
            yield row | transfer(method, reference, new, batch, seed)


def transfer(method, reference, new, batch, seed):
    """Scores of one method on one query."""
    truth, genes = new.obs["cell_type"].to_numpy(), np.random.default_rng(seed).permutation(new.n_vars)
    subsets = {share: new[:, np.sort(genes[int(share * new.n_vars) :])].copy() for share in MISSING}
    if method == "GMVAE":
        model = gmvae(reference.copy(), batch, True, seed)
        mapped = model.map(new)
        table, sets = mapped.predict(soft=True), mapped.predict_set(coverage=0.9)
        inside = sets.to_numpy()[np.arange(len(sets)), sets.columns.get_indexer(truth)]
        scores = {"coverage": round(inside.mean(), 4), "set size": round(sets.sum(axis=1).mean(), 3)}

        def predict(cells):
            return model.map(cells).predict()

    else:
        pca = PCA(N_PCS, random_state=seed).fit(log_normalised(reference))
        kind = KNeighborsClassifier(N_NEIGHBORS) if method == "PCA neighbours" else LogisticRegression(max_iter=1000)
        kind.fit(pca.transform(log_normalised(reference)), reference.obs["cell_type"])
        table = pd.DataFrame(kind.predict_proba(pca.transform(log_normalised(new))), columns=kind.classes_)
        scores = {}

        def predict(cells):
            x = np.zeros((cells.n_obs, reference.n_vars), np.float32)
            x[:, reference.var_names.get_indexer(cells.var_names)] = cells.X.toarray()
            return kind.predict(pca.transform(np.log1p(1e4 * x / np.maximum(x.sum(1, keepdims=True), 1))))

    p = table.to_numpy()
    guess = table.columns.to_numpy()[p.argmax(1)]
    scores["accuracy"] = round((guess == truth).mean(), 4)
    scores["calibration error"] = round(calibration_error(p.max(1), guess == truth), 4)
    for share, cells in subsets.items():
        scores[f"without {share:.0%} of genes"] = round((predict(cells) == truth).mean(), 4)
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--tasks", nargs="*", default=["carried_over", "left_out"])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for task, of, key in (("carried_over", carried_over, "query"), ("left_out", left_out, "type")):
        if task not in args.tasks:
            continue
        path = RESULTS / f"query_{task}.csv"
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        for seed in range(args.seeds):
            for name in args.sets:
                if task == "carried_over" and SETS[name] is None:
                    continue
                done = {(row["set"], row[key], row["method"], row["seed"]) for row in rows}
                for row in of(name, seed, args.methods, done):
                    rows.append(row)
                    pd.DataFrame(rows).to_csv(path, index=False)
                    print(row, flush=True)
    write_summary()


def write_summary():
    """Both tables as Markdown, as far as they have rows."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("mixvi", "scvi-tools", "scanpy", "torch"))
    lines = [f"{platform.machine()}, {packages}. Means over seeds and queries or types, and the least accuracy.", ""]
    for task, title in (("left_out", "one type left out"), ("carried_over", "labels carried over")):
        path = RESULTS / f"query_{task}.csv"
        if not path.exists():
            continue
        grouped = pd.read_csv(path).groupby(["set", "method"], sort=False)
        scores = grouped.mean(numeric_only=True).drop(columns=["seed", "cells"]).map("{:.3f}".format).replace("nan", "")
        if "accuracy" in scores:
            scores["accuracy"] += grouped["accuracy"].min().map(" ({:.3f})".format)
        scores.insert(0, "seeds", grouped["seed"].nunique())
        scores = scores.rename(columns=lambda name: name.replace(" of genes", ""))
        lines += [f"| {title} | method | " + " | ".join(scores.columns) + " |"]
        lines.append("|---" * (2 + len(scores.columns)) + "|")
        lines += [
            f"| {name} | {method} | " + " | ".join(map(str, row)) + " |" for (name, method), row in scores.iterrows()
        ]
        lines.append("")
    (RESULTS / "query.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
