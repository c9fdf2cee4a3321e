"""Clusters and classes of MNIST and Fashion-MNIST by mixvi.GMVAE: fully connected, no augmentation.

    MIXVI_DATA_DIR=... uv run python benchmarks/images.py --set mnist --clusters 10 0 --seeds 5
    MIXVI_DATA_DIR=... uv run python benchmarks/images.py --set mnist --clusters 20 --init n2d --seeds 5
    MIXVI_DATA_DIR=... uv run python benchmarks/images.py --set mnist --labels 100 0.05 --init vat --seeds 3

``--clusters``: all 70,000 images and no label. Accuracy is that of ``predict()``: under the best one-to-one match for
as many clusters as classes, by the label of the majority otherwise; 0 infers the number. ``--labels``: so many labels
(or that share), the same of each class and drawn by the seed, among the 60,000 training images; accuracy on the 10,000
others.

Not at defaults: two hidden layers of 512, 20 latent dimensions, no dropout, 30 epochs at learning rate 1e-3, batches of
256, KL weight 0.3, and guidance 25 (with labels 100), as images follow their neighbours more than cells do. Adds a line
to benchmarks/results/images_*.csv (or ``--name``) for each result, goes on where it ended, and writes .md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import torch
from clustering import calibration_error, label_confidence
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


def train(images, n_clusters, guidance, args):
    """A model with the settings that all results share."""
    model = mixvi.GMVAE(images, n_clusters, init=args.init, guidance=args.guidance or guidance, **NET)
    plan = {"max_kl_weight": args.beta, "lr": 1e-3}
    model.train(args.epochs, batch_size=256, train_size=1.0, plan_kwargs=plan, enable_progress_bar=False)
    return model


def cluster(images, labels, n_clusters, seed, args):
    """Without labels: how well the clusters match the classes."""
    mixvi.GMVAE.setup_anndata(images)
    model = train(images, n_clusters or None, 25.0, args)
    table = model.predict(soft=True).to_numpy()
    clusters = table.argmax(1)
    confidence, majority = label_confidence(labels, clusters, table), pd.crosstab(labels, clusters).idxmax()
    return {
        "found": model.n_clusters, "accuracy": accuracy(labels, clusters),
        "ARI": adjusted_rand_score(labels, clusters), "NMI": normalized_mutual_info_score(labels, clusters),
        "confidence": confidence.mean(), "ECE": calibration_error(confidence, majority[clusters].to_numpy() == labels),
    }  # fmt: skip


def classify(images, labels, n_labels, seed, args):
    """With some labels in the training images: classes of the test images."""
    is_train = (images.obs["split"] == "train").to_numpy()
    seen, new = images[is_train].copy(), images[~is_train]
    truth = labels[is_train]
    each = round(n_labels * (len(truth) if n_labels < 1 else 1) / len(set(labels)))
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(truth == label), each, replace=False) for label in np.unique(labels)]
    known = np.full(len(truth), "unknown", dtype=object)
    known[np.concatenate(chosen)] = truth[np.concatenate(chosen)]
    seen.obs["known"] = known
    mixvi.GMVAE.setup_anndata(seen, labels_key="known", unlabeled_category="unknown")
    model = train(seen, None, 100.0, args)
    table = model.predict(new, soft=True)
    found, confidence = table.idxmax(axis=1).to_numpy(), table.to_numpy().max(1)
    return {
        "found": model.n_clusters, "accuracy": (found == labels[~is_train]).mean(),
        "ARI": adjusted_rand_score(labels[~is_train], found),
        "NMI": normalized_mutual_info_score(labels[~is_train], found), "confidence": confidence.mean(),
        "ECE": calibration_error(confidence, found == labels[~is_train]),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(LABELS), default="mnist")
    parser.add_argument("--clusters", type=int, nargs="*", default=[])
    parser.add_argument("--labels", type=float, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--beta", type=float, default=0.3)
    parser.add_argument("--guidance", type=float, help="25, with labels 100")
    parser.add_argument("--init", default="leiden")
    parser.add_argument("--name")
    args = parser.parse_args()
    images = getattr(mixvi.datasets, args.set)()
    labels = images.obs[LABELS[args.set]].astype(str).to_numpy()
    path = RESULTS / f"{args.name or f'images_{args.set}'}.csv"
    done = set() if not path.exists() else set(pd.read_csv(path)[["task", "seed"]].itertuples(index=False, name=None))
    tasks = [(f"{k or 'inferred'} clusters, {args.init}", cluster, k) for k in args.clusters]
    tasks += [
        (f"{n:g} labels, {args.init}" if n >= 1 else f"{n:.0%} labels, {args.init}", classify, n) for n in args.labels
    ]
    for task, run, n in tasks:
        for seed in range(args.seeds):
            if (task, seed) in done:
                continue
            scvi.settings.seed = seed
            start = time.perf_counter()
            row = {"task": task, "seed": seed} | run(images, labels, n, seed, args)
            row |= {"seconds": time.perf_counter() - start, "epochs": args.epochs, "threads": torch.get_num_threads()}
            print(row, flush=True)
            pd.DataFrame([row]).round(4).to_csv(path, mode="a", header=not path.exists(), index=False)
    frame = pd.read_csv(path)
    lines = [
        f"Two hidden layers of 512, 20 latent dimensions, {args.epochs} epochs, guidance 25 (100 with labels).",
        "",
        "| | clusters found | accuracy mean | min | ARI | NMI | confidence | ECE | seconds | seeds |",
        "|---" * 10 + "|",
    ]
    for task, group in frame.groupby("task", sort=False):
        mean = group.mean(numeric_only=True)
        lines.append(
            f"| {task} | {group['found'].min()} to {group['found'].max()} | **{mean['accuracy']:.3f}** "
            f"| {group['accuracy'].min():.3f} | {mean['ARI']:.3f} | {mean['NMI']:.3f} | {mean['confidence']:.3f} "
            f"| {mean['ECE']:.3f} | {mean['seconds']:.0f} | {len(group)} |".replace("nan", "-")
        )
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
