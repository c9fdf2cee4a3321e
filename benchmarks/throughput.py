"""Speed of mixvi.VAE against scvi.model.SCVI: same net, likelihood, batch size, split and epochs, in turn, in one run.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/throughput.py --cells 30000 --batch-sizes 128 1024

Cells are simulated from real blood cells (pbmc3k): each is a half, drawn count by count, of what two real cells of one
type have together, so that sparsity, library sizes and genes that go together are real. Genes are the most variable.
Both models train through ``train()``, without validation, after a short run that warms up, and give their latents; the
table has medians over --repeats and their range. A measurement has about --visits training cells, which is several
epochs of few cells and a part of one of many. The time in which a megabyte goes from one core to another is noted
before each: virtual machines move between cores that share a cache and cores that do not, which counts more the less
else a step on the CPU does. --elbo trains SCVI at its defaults and mixvi.VAE for as many epochs, and
notes when the second has the final bound of the first on the same held-out cells, computed by one function.
--compile has mixvi.VAE compile its step (on CUDA: capture it as a graph), and takes twice the epochs less once, so that
what compiling costs does not count. pbmc3k.h5ad with .obs["cell_type"] must be in the folder.
--alone-cells trains each model in a process of its own for an epoch, for peak memory and the first call. --density asks
which share of zeros makes CSR pay. Each part writes a file of its own, benchmarks/results/throughput_cpu*.{csv,md,png}.
"""

import argparse
import logging
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from importlib.metadata import version
from itertools import product
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
from mixvi.train import MixviPlan

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


def build(cls, adata, seed=0):
    scvi.settings.seed = seed
    cls.setup_anndata(adata)
    return cls(adata, **SETTINGS[cls])


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def hand_over(n_times=200):
    """Microseconds in which all threads write a megabyte and one reads it."""
    x = torch.zeros(2**18)
    return 1e6 * float(np.median([clock(lambda: x.add_(1).numpy().sum()) for _ in range(n_times)]))


def throughput(adata, batch_size, visits, repeats, compiled=False):
    """Cells a second of both models, in turn."""
    rows = []
    options = QUIET | {"batch_size": batch_size, "train_size": 0.9, "check_val_every_n_epoch": None}
    n_train = int(0.9 * adata.n_obs)
    if visits > n_train:
        n_epochs = round(visits / n_train)
        n_cells = n_epochs * n_train
    else:
        n_epochs, steps = 1, visits // batch_size
        options["max_steps"], n_cells = steps, steps * batch_size

    def train(model, plan, times):
        steps = {"max_steps": times * options["max_steps"]} if "max_steps" in options else {}
        model.train(times * n_epochs, plan_kwargs=dict(plan), **(options | steps))

    models = {cls: build(cls, adata) for cls in SETTINGS}
    plans = {mixvi.VAE: {"compile": compiled}, scvi.model.SCVI: {}}
    for cls, model in models.items():
        model.train(1, plan_kwargs=dict(plans[cls]), **options)
        model.get_latent_representation()
    for repeat in range(repeats):
        for cls, model in models.items():
            plan, between = plans[cls], hand_over()
            training = clock(partial(train, model, plan, 1))
            if compiled:
                training = clock(partial(train, model, plan, 2)) - training
            inference = clock(lambda model=model: model.get_latent_representation())
            rows.append(
                {"cells": adata.n_obs, "genes": adata.n_vars, "batch size": batch_size, "model": cls.__name__,
                 "repeat": repeat, "hand-over": between, "training": n_cells / training,
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
    optimizer = MixviPlan(module).configure_optimizers()["optimizer"]
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


class Watch(Callback):
    """Notes the held-out bound after each epoch; its own time does not count."""

    def __init__(self, adata):
        self.adata, self.curve, self.own, self.start = adata, [], 0.0, time.perf_counter()

    def on_train_epoch_end(self, trainer, plan):
        """Score, and stop the clock meanwhile."""
        now = time.perf_counter()
        self.curve.append(
            (now - self.start - self.own, held_out_elbo(plan.module, self.adata, trainer.datamodule.val_idx))
        )
        self.own += time.perf_counter() - now


def time_to_elbo(adata, seed):
    """Seconds of SCVI at its defaults, and of mixvi.VAE until it has SCVI's bound, each with its first call."""
    scvi_model = build(scvi.model.SCVI, adata, seed)
    seconds = clock(lambda: scvi_model.train(train_size=0.9, **QUIET))
    target, n_epochs = (
        held_out_elbo(scvi_model.module, adata, scvi_model.validation_indices),
        len(scvi_model.history["elbo_train"]),
    )
    vae, watch = build(mixvi.VAE, adata, seed), Watch(adata)
    vae.train(n_epochs, train_size=0.9, callbacks=[watch], check_val_every_n_epoch=None, **QUIET)
    assert (vae.validation_indices == scvi_model.validation_indices).all()
    reached = [i for i, (_, elbo) in enumerate(watch.curve) if elbo >= target]
    found = {
        "cells": adata.n_obs, "seed": seed, "epochs": n_epochs, "SCVI: seconds": seconds, "SCVI: bound": target,
        "VAE: seconds to it": watch.curve[reached[0]][0] if reached else np.nan,
        "VAE: epochs to it": reached[0] + 1 if reached else np.nan,
        "VAE: seconds": watch.curve[-1][0], "VAE: bound": watch.curve[-1][1],
    }  # fmt: skip
    found["times less"] = found["SCVI: seconds"] / found["VAE: seconds to it"]
    print(found, flush=True)
    return found


def density(n_genes, batch_sizes, shares=(0.03, 0.1, 0.2, 0.3, 0.4, 0.6), repeats=20):
    """Milliseconds of the objective and its gradient with the same cells as CSR and dense, by share of non-zeros."""
    rows, rng = [], np.random.default_rng(0)
    for batch_size, likelihood, share in product(batch_sizes, ("nb", "bernoulli"), shares):
        x = sp.random(batch_size, n_genes, share, "csr", np.float32, rng, lambda n: rng.integers(1, 4, n))
        x.data = x.data if likelihood == "nb" else np.ones_like(x.data)
        mixvi.VAE.setup_anndata(adata := ad.AnnData(x))
        module = mixvi.VAE(adata, likelihood=likelihood).module.to(DEVICE)
        csr = torch.sparse_csr_tensor(*map(torch.from_numpy, (x.indptr, x.indices, x.data)), x.shape).to(DEVICE)
        seconds = {"CSR": [], "dense": []}
        for _ in range(repeats):
            for form, values in (("CSR", csr), ("dense", csr.to_dense())):
                seconds[form].append(clock(partial(_objective, module, values)))
        rows.append({"batch size": batch_size, "likelihood": likelihood, "non-zero": share}
                    | {form: 1000 * float(np.median(found)) for form, found in seconds.items()})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def _objective(module, x):
    zero = torch.zeros(len(x), 1, device=DEVICE)
    module.objective(module.read({"X": x, "batch": zero, "labels": zero})).loss.backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak_memory():
    """GB, of this process so far."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def alone(name, path, n_cells, n_genes, n_epochs):
    """Peak memory and seconds of training in this process, first call included; cells in memory, or in zarr."""
    cls = {"VAE": mixvi.VAE, "SCVI": scvi.model.SCVI}[name]
    adata = mixvi.data.from_zarr(path, obs_names=False) if path else simulate(n_cells, n_genes)
    before = peak_memory()
    seconds = clock(lambda: build(cls, adata).train(n_epochs, batch_size=1024, **QUIET))
    print(f"{before:.2f},{peak_memory():.2f},{seconds:.1f}")


def all_alone(n_cells, n_genes, n_visits):
    """Rows of a table: each model in memory for an epoch; mixvi.VAE from zarr too, for as many blocks at any size."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/cells.zarr"
        simulate(n_cells, n_genes).write_h5ad(f"{folder}/cells.h5ad")
        mixvi.data.to_zarr(f"{folder}/cells.h5ad", store, progress=False)
        for name, path in (("VAE", ""), ("SCVI", ""), ("VAE", store)):
            n_epochs = max(n_visits // n_cells, 1) if path else 1
            command = [sys.executable, __file__, "--alone", name, path, *map(str, (n_cells, n_genes, n_epochs))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, after, seconds = done.stdout.strip().splitlines()[-1].split(",")
            where = "zarr" if path else "memory"
            row = {"model": name, "cells": n_cells, "genes": n_genes, "in": where, "epochs": n_epochs}
            rows.append(row | {"GB before": before, "GB at the peak": after, "seconds": seconds})
            print(rows[-1], flush=True)
    return rows


def table(rows):
    """Medians, ranges and ratios in Markdown."""
    frame = pd.DataFrame(rows)
    keys = ["cells", "genes", "batch size"]
    lines = [
        "| cells | genes | batch size | task | VAE, cells/s (range) | SCVI, cells/s (range) | ratio | hand-over, µs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, group in frame.groupby(keys):
        between = group["hand-over"]
        for task in ("training", "inference"):
            by_model = group.groupby("model")[task]
            median, low, high = by_model.median(), by_model.min(), by_model.max()
            shown = [f"{median[m]:,.0f} ({low[m]:,.0f} to {high[m]:,.0f})" for m in ("VAE", "SCVI")]
            lines.append(
                f"| {key[0]:,} | {key[1]:,} | {key[2]:,} | {task} | {shown[0]} | {shown[1]} "
                f"| **{median['VAE'] / median['SCVI']:.1f}** | {between.min():.0f} to {between.max():.0f} |"
            )
    return lines


def plot(rows, path):
    import matplotlib.pyplot as plt

    frame = pd.DataFrame(rows)
    frame["setting"] = frame["cells"].map("{:,} cells".format) + frame["batch size"].map(", batch {}".format)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, task in zip(axes, ("training", "inference"), strict=True):
        median = frame.groupby(["setting", "model"], sort=False)[task].median().unstack()[["SCVI", "VAE"]]
        median.plot.barh(ax=ax, color=["0.7", "C0"], legend=False, title=f"{task}, cells a second")
        ax.set(xlabel="", ylabel="")
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=4)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)


def markdown(rows):
    """Rows of one kind as a Markdown table."""
    frame = pd.DataFrame(rows)
    lines = ["| " + " | ".join(frame) + " |", "|" + "---|" * frame.shape[1]]
    shown = frame.map(lambda value: f"{value:,.2f}" if isinstance(value, float) else f"{value}")
    return [*lines, *("| " + " | ".join(row) + " |" for row in shown.to_numpy()), ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[3_000, 30_000])
    parser.add_argument("--genes", type=int, nargs="*", default=[2_000])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--visits", type=int, default=60_000, help="training cells of one measurement, about")
    parser.add_argument("--elbo", type=int, help="cells for the time to SCVI's bound; 0 leaves it out", default=3_000)
    parser.add_argument("--seeds", type=int, default=3, help="runs of --elbo")
    parser.add_argument("--alone-cells", type=int, nargs="*", default=[])
    parser.add_argument("--density", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", default="throughput", help="of the files written")
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("mixvi", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    if args.alone:
        name, path, *numbers = args.alone
        return alone(name, path, *map(int, numbers))

    name = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} CPU threads"
    packages = ", ".join(f"{package} {version(package)}" for package in ("mixvi", "scvi-tools", "torch", "lightning"))
    stem = RESULTS / f"{args.name}_{DEVICE}{'_compiled' if args.compile else ''}"
    header = [f"`python {' '.join(sys.argv)}`: {name}, {platform.machine()}, {packages}.", ""]
    if args.cells:
        rows, parts, shares = [], [], []
        for n_cells in args.cells:
            for n_genes in args.genes:
                adata = simulate(n_cells, n_genes)
                shares.append(f"{100 * adata.X.nnz / np.prod(adata.shape):.1f} % of {adata.n_vars:,} genes")
                for batch_size in args.batch_sizes:
                    rows += throughput(adata, batch_size, args.visits, args.repeats, args.compile)
                    parts.append({"genes": adata.n_vars, "batch size": batch_size, **breakdown(adata, batch_size)})
        lines = [
            *table(rows),
            "",
            f"Medians of {args.repeats}, in turn. Not zero: {', '.join(dict.fromkeys(shares))}.",
            "",
        ]
        parts = pd.DataFrame(parts).groupby(["genes", "batch size"], as_index=False).median()
        lines += ["A step of mixvi.VAE, milliseconds by part:", "", *markdown(parts.to_dict("records"))]
        write(f"{stem}.md", header + lines)
        pd.DataFrame(rows).round(1).to_csv(f"{stem}.csv", index=False)
        plot(rows, f"{stem}.png")
    if args.elbo:
        adata = simulate(args.elbo, args.genes[0])
        found = [time_to_elbo(adata, seed) for seed in range(args.seeds)]
        write(f"{stem}_bound.md", header + bounds(found))
    if args.alone_cells:
        found = [
            row for n_cells in args.alone_cells for row in all_alone(n_cells, args.genes[0], max(args.alone_cells))
        ]
        lines = ["Training with batch 1,024 in a process of its own, first call included:", "", *markdown(found)]
        write(f"{stem}_alone.md", header + lines)
    if args.density:
        lines = [
            "Milliseconds of the objective and its gradient:",
            "",
            *markdown(density(args.genes[0], args.batch_sizes)),
        ]
        write(f"{stem}_density.md", header + lines)


def bounds(found):
    """Runs of `time_to_elbo` as a table."""
    less = [run["times less"] for run in found]
    lines = ["Time to the bound on held-out cells that SCVI ends with at its defaults:", "", *markdown(found)]
    return [*lines, f"Mean {np.mean(less):.1f} times less, least {np.min(less):.1f}, of {len(less)} seeds.", ""]


def write(path, lines):
    Path(path).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
