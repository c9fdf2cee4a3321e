"""Clusters of MNIST and Fashion-MNIST by mixvi.GMVAE: all 70,000 images, fully connected, no augmentation, no labels.

    MIXVI_DATA_DIR=... uv run python benchmarks/images.py --set mnist --clusters 10 20 0 --seeds 5

Accuracy is that of ``predict()``: under the best one-to-one match for as many clusters as classes, by the label of the
majority otherwise. 0 clusters infers the number. Writes benchmarks/results/images_*.{csv,md}.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import mixvi

RESULTS = Path(__file__).parent / "results"
LABELS = {"mnist": "digit", "fashion_mnist": "item"}
NET = {"n_latent": 20, "n_hidden": 512, "n_layers": 2, "dropout_rate": 0.0, "likelihood": "bernoulli"}


def accuracy(labels, clusters):
    """Share of cells whose cluster stands for their class."""
    table = pd.crosstab(np.asarray(labels), np.asarray(clusters)).to_numpy()
    if table.shape[0] == table.shape[1]:
        return table[linear_sum_assignment(-table)].sum() / table.sum()
    return table.max(0).sum() / table.sum()


def fit(images, labels, n_clusters, seed, n_epochs, beta, batch_size, guidance):
    """A row of the table, and the model."""
    scvi.settings.seed = seed
    start = time.perf_counter()
    mixvi.GMVAE.setup_anndata(images)
    model = mixvi.GMVAE(images, n_clusters or None, **NET)
    plan = {"max_kl_weight": beta} | ({} if guidance is None else {"guidance": guidance})
    model.train(n_epochs, batch_size=batch_size, train_size=1.0, plan_kwargs=plan, enable_progress_bar=False)
    table = model.predict(soft=True)
    seconds = time.perf_counter() - start
    clusters = table.to_numpy().argmax(1)
    return {
        "clusters": n_clusters or "inferred", "seed": seed, "found": model.n_clusters,
        "accuracy": accuracy(labels, clusters), "ARI": adjusted_rand_score(labels, clusters),
        "NMI": normalized_mutual_info_score(labels, clusters), "confidence": table.max(axis=1).mean(),
        "seconds": seconds,
    }, model  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(LABELS), default="mnist")
    parser.add_argument("--clusters", type=int, nargs="*", default=[10, 20, 0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--beta", type=float, default=0.3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--name")
    args = parser.parse_args()
    images = getattr(mixvi.datasets, args.set)()
    rows = []
    for n_clusters in args.clusters:
        for seed in range(args.seeds):
            labels = images.obs[LABELS[args.set]].to_numpy()
            row, _ = fit(images, labels, n_clusters, seed, args.epochs, args.beta, args.batch_size, args.guidance)
            rows.append(row)
            print(rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    name = args.name or f"images_{args.set}"
    frame.round(4).to_csv(RESULTS / f"{name}.csv", index=False)
    lines = [f"# {args.set}: {images.n_obs:,} images, {torch.get_num_threads()} CPU threads", ""]
    lines += ["| clusters | found | accuracy mean | min | ARI | NMI | confidence | seconds | seeds |", "|---" * 9 + "|"]
    for key, group in frame.groupby("clusters", sort=False):
        mean = group.mean(numeric_only=True)
        lines.append(
            f"| {key} | {group['found'].min()} to {group['found'].max()} | **{mean['accuracy']:.3f}** "
            f"| {group['accuracy'].min():.3f} | {mean['ARI']:.3f} | {mean['NMI']:.3f} | {mean['confidence']:.3f} "
            f"| {mean['seconds']:.0f} | {len(group)} |"
        )
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
