"""Speed of mixvi.VAE against scvi.model.SCVI: same net, likelihood, batch size, split and epochs, in turn, in one run.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/throughput.py --cells 30000 --batch-sizes 128 1024

Cells are simulated from real blood cells (pbmc3k): each is a half, drawn count by count, of what two real cells of one
type have together, so that sparsity, library sizes and genes that go together are real. Genes are the most variable.
Both models train through ``train()``, without validation, after one epoch that warms up, and give their latents; the
table has medians over --repeats and their range. --elbo trains SCVI at its defaults and then mixvi.VAE until it has
SCVI's bound on the same held-out cells, computed by one function. --memory NAME trains one model alone and prints its
peak memory. Writes benchmarks/results/throughput_*.{csv,md,png}; runs on CPU and CUDA alike.
"""

import argparse
import logging
import platform
import resource
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import scvi
import torch
from lightning.pytorch import Callback

import mixvi
from mixvi.data import CellsDataset

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
QUIET = {"enable_progress_bar": False, "accelerator": "gpu" if DEVICE == "cuda" else "cpu", "devices": 1}
SETTINGS = {mixvi.VAE: {"likelihood": "nb"}, scvi.model.SCVI: {"gene_likelihood": "nb"}}


def simulate(n_cells, n_genes, seed=0):
    """Counts as CSR, float32."""
    rng = np.random.default_rng(seed)
    real = mixvi.datasets.pbmc3k()
    sc.pp.filter_genes(real, min_cells=1)
    sc.pp.highly_variable_genes(real, n_top_genes=min(n_genes, real.n_vars), flavor="seurat_v3", subset=True)
    x = sp.csr_matrix(real.X, dtype=np.float32)
    codes = real.obs["cell_type"].astype("category").cat.codes.to_numpy()
    first = rng.integers(0, len(codes), n_cells)
    second = np.empty(n_cells, dtype=int)
    for code in np.unique(codes):
        mine = np.flatnonzero(codes[first] == code)
        second[mine] = rng.choice(np.flatnonzero(codes == code), len(mine))
    blocks = []
    for rows in np.array_split(np.arange(n_cells), -(-n_cells // 10_000)):
        both = x[first[rows]] + x[second[rows]]
        both.data = rng.binomial(both.data.astype(int), 0.5).astype(np.float32)
        both.eliminate_zeros()
        blocks.append(both)
    return ad.AnnData(sp.vstack(blocks, format="csr"))


def build(cls, adata):
    scvi.settings.seed = 0
    cls.setup_anndata(adata)
    return cls(adata, **SETTINGS[cls])


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def throughput(adata, batch_size, n_epochs, repeats):
    """Cells a second of both models, in turn."""
    rows = []
    options = QUIET | {"batch_size": batch_size, "train_size": 0.9, "check_val_every_n_epoch": None}
    models = {cls: build(cls, adata) for cls in SETTINGS}
    for model in models.values():
        model.train(1, **options)
        model.get_latent_representation()
    for repeat in range(repeats):
        for cls, model in models.items():
            training = clock(lambda model=model: model.train(n_epochs, **options))
            inference = clock(lambda model=model: model.get_latent_representation())
            rows.append(
                {"cells": adata.n_obs, "genes": adata.n_vars, "batch size": batch_size, "model": cls.__name__,
                 "repeat": repeat, "training": 0.9 * adata.n_obs * n_epochs / training,
                 "inference": adata.n_obs / inference}
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def breakdown(adata, batch_size):
    """Milliseconds of a step of mixvi.VAE by part, medians over the minibatches of a block."""
    model = build(mixvi.VAE, adata)
    module, device = model.module.to(DEVICE), torch.device(DEVICE)
    dataset = CellsDataset(model.adata_manager, device, resident=True)
    rows = np.random.default_rng(0).permutation(adata.n_obs)[: dataset.block_size(batch_size)]
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6, fused=True)
    n = -(-len(rows) // batch_size)
    found = {"gather": [clock(lambda: dataset[rows]) / n for _ in range(5)]}
    block = dataset[rows]
    found["read, split"] = [clock(lambda: list(module.read(block).split(batch_size))) / n for _ in range(5)]
    parts = ("encoder", "likelihood", "prior", "backward", "optimizer")
    found |= {part: [] for part in parts}
    for cells in module.read(block).split(batch_size):
        at = [time.perf_counter()]
        for step in _steps(module, cells, optimizer):
            step()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            at.append(time.perf_counter())
        for part, seconds in zip(parts, np.diff(at), strict=True):
            found[part].append(seconds)
    return {part: 1000 * float(np.median(seconds)) for part, seconds in found.items()}


def _steps(module, cells, optimizer):
    state = {}

    def encode():
        state["qz"] = module.encode(cells)
        state["z"] = state["qz"].rsample()

    def likelihood():
        state["log_px"] = module.likelihood.log_prob(state["z"], cells)

    def prior():
        state["kl"] = module.prior.kl(state["qz"], state["z"], cells).annealed["kl_z"]

    def backward():
        optimizer.zero_grad()
        (state["kl"] - state["log_px"]).mean().backward()

    return encode, likelihood, prior, backward, optimizer.step


@torch.no_grad()
def held_out_elbo(module, adata, rows):
    """Mean ELBO of cells, one sample each; scvi-tools' own interface, so that both modules go through it."""
    was_training = module.training
    module.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        total = 0.0
        for part in np.array_split(rows, -(-len(rows) // 1024)):
            x = torch.as_tensor(adata.X[part].toarray(), device=DEVICE)
            zero = torch.zeros(len(part), 1, device=DEVICE)
            tensors = {"X": x, "batch": zero, "labels": zero}
            _, _, loss = module(tensors, loss_kwargs={"kl_weight": 1.0})
            total -= float(loss.reconstruction_loss_sum + loss.kl_local_sum)
    module.train(was_training)
    return total / len(rows)


class Until(Callback):
    """Notes the held-out bound after each epoch, and stops at a value; its own time does not count."""

    def __init__(self, adata, target=np.inf):
        self.adata, self.target, self.curve, self.own, self.start = adata, target, [], 0.0, time.perf_counter()

    def on_train_epoch_end(self, trainer, plan):
        """Score, and stop the clock meanwhile."""
        now = time.perf_counter()
        rows = trainer.datamodule.val_idx
        self.curve.append((now - self.start - self.own, held_out_elbo(plan.module, self.adata, rows)))
        trainer.should_stop |= self.curve[-1][1] >= self.target
        self.own += time.perf_counter() - now


def time_to_elbo(adata):
    """Seconds of SCVI at its defaults and of mixvi.VAE until it has SCVI's bound, each with its first call."""
    scvi_model, vae = (build(cls, adata) for cls in (scvi.model.SCVI, mixvi.VAE))
    seconds = clock(lambda: scvi_model.train(train_size=0.9, **QUIET))
    target = held_out_elbo(scvi_model.module, adata, scvi_model.validation_indices)
    watch = Until(adata, target)
    vae.train(train_size=0.9, callbacks=[watch], check_val_every_n_epoch=None, **QUIET)
    reached = [t for t, elbo in watch.curve if elbo >= target]
    found = {
        "cells": adata.n_obs, "SCVI seconds": seconds, "SCVI epochs": len(scvi_model.history["elbo_train"]),
        "SCVI ELBO": target, "mixvi seconds": reached[0] if reached else np.nan, "mixvi epochs": len(watch.curve),
        "mixvi ELBO": watch.curve[-1][1],
    }  # fmt: skip
    print(found, flush=True)
    return found


def peak_memory(name, n_cells, n_genes):
    """GB of a process that simulates the cells and trains one model for one epoch."""
    cls = {"VAE": mixvi.VAE, "SCVI": scvi.model.SCVI}[name]
    adata = simulate(n_cells, n_genes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = clock(lambda: build(cls, adata).train(1, batch_size=1024, **QUIET))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{name},{n_cells},{before / 2**20:.2f},{after / 2**20:.2f},{seconds:.0f}")


def table(rows):
    """Medians, ranges and ratios in Markdown."""
    frame = pd.DataFrame(rows)
    keys = ["cells", "genes", "batch size"]
    lines = [
        "| cells | genes | batch size | task | VAE, cells/s (range) | SCVI, cells/s (range) | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, group in frame.groupby(keys):
        for task in ("training", "inference"):
            by_model = group.groupby("model")[task]
            median, low, high = by_model.median(), by_model.min(), by_model.max()
            shown = [f"{median[m]:,.0f} ({low[m]:,.0f} to {high[m]:,.0f})" for m in ("VAE", "SCVI")]
            lines.append(
                f"| {key[0]:,} | {key[1]:,} | {key[2]:,} | {task} | {shown[0]} | {shown[1]} "
                f"| **{median['VAE'] / median['SCVI']:.1f}** |"
            )
    return lines


def plot(rows, path):
    import matplotlib.pyplot as plt

    frame = pd.DataFrame(rows)
    frame["setting"] = frame["cells"].map("{:,} cells".format) + frame["batch size"].map(", batch {}".format)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, task in zip(axes, ("training", "inference"), strict=True):
        median = frame.groupby(["setting", "model"], sort=False)[task].median().unstack()[["SCVI", "VAE"]]
        median.plot.barh(ax=ax, color=["0.7", "C0"], legend=task == "training", title=f"{task}, cells a second")
        ax.set(xlabel="", ylabel="")
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=4)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[3_000, 30_000])
    parser.add_argument("--genes", type=int, nargs="*", default=[2_000])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--visits", type=int, default=60_000, help="training cells of one measurement, about")
    parser.add_argument("--elbo", type=int, help="cells for the time to SCVI's bound; 0 leaves it out", default=3_000)
    parser.add_argument("--memory-cells", type=int, nargs="*", default=[])
    parser.add_argument("--memory", help="internal: measure this model in this process")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("mixvi", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    if args.memory:
        return peak_memory(args.memory, args.memory_cells[0], args.genes[0])

    name = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} CPU threads"
    rows, parts, density = [], [], {}
    for n_cells in args.cells:
        for n_genes in args.genes:
            adata = simulate(n_cells, n_genes)
            density[n_cells, n_genes] = adata.X.nnz / np.prod(adata.shape)
            for batch_size in args.batch_sizes:
                n_epochs = max(round(args.visits / n_cells), 1)
                rows += throughput(adata, batch_size, n_epochs, args.repeats)
                parts.append({"genes": n_genes, "batch size": batch_size, **breakdown(adata, batch_size)})
    packages = ", ".join(f"{package} {version(package)}" for package in ("mixvi", "scvi-tools", "torch", "lightning"))
    lines = [f"# Speed on {name}", "", f"`python {' '.join(sys.argv)}`, {platform.machine()}, {packages}.", ""]
    lines += table(rows) if rows else []
    shares = ", ".join(f"{100 * share:.1f} % ({n:,} x {g:,})" for (n, g), share in density.items())
    lines += ["", f"Entries that are not zero: {shares}. Medians of {args.repeats}, in turn.", ""]
    if parts:
        frame = pd.DataFrame(parts).drop_duplicates(["genes", "batch size"], keep="last").round(2)
        lines += ["A step of mixvi.VAE, milliseconds by part:", "", "| " + " | ".join(frame) + " |"]
        lines += ["|" + "---|" * frame.shape[1]]
        lines += ["| " + " | ".join(map("{:g}".format, row)) + " |" for row in frame.to_numpy()] + [""]
    if args.elbo:
        found = time_to_elbo(simulate(args.elbo, args.genes[0]))
        lines += [
            f"Time to SCVI's held-out bound, {args.elbo:,} cells: SCVI at its defaults {found['SCVI seconds']:.0f} s "
            f"({found['SCVI epochs']} epochs, {found['SCVI ELBO']:.2f} nats a cell); mixvi.VAE "
            f"{found['mixvi seconds']:.1f} s ({found['mixvi epochs']} epochs, {found['mixvi ELBO']:.2f}); "
            f"**{found['SCVI seconds'] / found['mixvi seconds']:.1f}** times less.",
            "",
        ]
    for n_cells in args.memory_cells:
        command = [sys.executable, __file__, "--genes", str(args.genes[0]), "--memory-cells", str(n_cells)]
        for model in ("VAE", "SCVI"):
            done = subprocess.run([*command, "--memory", model], capture_output=True, text=True, check=True)
            _, n, before, after, seconds = done.stdout.strip().splitlines()[-1].split(",")
            lines.append(
                f"Memory, {model}, {int(n):,} cells: peak {after} GB ({before} GB before training); an epoch with "
                f"batch 1,024, first call included, {seconds} s."
            )
    RESULTS.mkdir(exist_ok=True)
    stem = f"throughput_{DEVICE}"
    (RESULTS / f"{stem}.md").write_text("\n".join(lines) + "\n")
    if rows:
        pd.DataFrame(rows).round(1).to_csv(RESULTS / f"{stem}.csv", index=False)
        plot(rows, RESULTS / f"{stem}.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
