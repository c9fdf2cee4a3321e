"""The whole job from 3,000 to 1,000,000 cells: setup, training and annotation, beside PCA and Leiden.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/scale.py --cells 3000 30000 100000

Cells x 2,000 genes are simulated from real ones: the mean profile of each type of zheng_facs10_pbmc, real library
sizes of this type, and a negative binomial with the inverse dispersion of each gene in these cells, by moments. So the
labels are known. A type of 0.1 % is added: the profile of CD14+ monocytes, in which 100 of the genes are four times
higher. It counts as found if one of several clusters has a Jaccard index of 1/2 or more with it.

Each row runs in a process of its own, with the method at its defaults. ``--zarr`` streams the cells from a store, and
writes the results there by `annotate_store`. "Loading" includes imports. Adds lines to
benchmarks/results/scale.csv, goes on where it ended, and writes benchmarks/results/scale.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

RESULTS = Path(__file__).parent / "results"
N_GENES, BLOCK = 2000, 5000
RARE, RARE_SHARE, RARE_GENES, RARE_FOLD = "rare", 0.001, 100, 4.0
PARTS = ("loading", "setup", "training", "annotation")
KEYS = ["cells", "method", "where", "seed"]


def real_types():
    """Mean profile (g,) and library sizes of each type, and the inverse dispersion (g,) of the genes."""
    import scanpy as sc

    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / "zheng_facs10_pbmc.h5ad")
    sc.pp.highly_variable_genes(cells, n_top_genes=N_GENES, flavor="seurat_v3", subset=True)
    types, excess, square = {}, np.zeros(N_GENES), np.zeros(N_GENES)
    for name in cells.obs["cell_type"].unique():
        x = np.asarray(cells[cells.obs["cell_type"] == name].X.todense(), dtype=float)
        library = x.sum(1)
        types[name] = x.sum(0) / x.sum(), library
        mean = library[:, None] * types[name][0]
        excess += ((x - mean) ** 2 - mean).sum(0)
        square += (mean**2).sum(0)
    return types, np.clip(square / np.maximum(excess, 1e-12), 0.1, 1e4)


def simulate(n_cells, seed):
    """Counts as CSR, float32, with the type of each cell in ``.obs``."""
    rng = np.random.default_rng(seed)
    types, theta = real_types()
    profile, library = types["CD14+ Monocyte"]
    other = profile.copy()
    other[rng.choice(np.argsort(-profile)[:1000], RARE_GENES, replace=False)] *= RARE_FOLD
    types[RARE] = other / other.sum(), library
    names, common = list(types), len(types) - 1
    kind = rng.integers(common, size=n_cells)
    kind[rng.permutation(n_cells)[: round(RARE_SHARE * n_cells)]] = common
    profiles = np.stack([types[name][0] for name in names])
    blocks = []
    for start in range(0, n_cells, BLOCK):
        mine = kind[start : start + BLOCK]
        depth = np.array([rng.choice(types[names[k]][1]) for k in mine])
        mean = depth[:, None] * profiles[mine]
        blocks.append(sp.csr_matrix(rng.poisson(rng.gamma(theta, mean / theta)).astype(np.float32)))
    obs = pd.DataFrame({"type": pd.Categorical.from_codes(kind, names)}, [f"cell {i}" for i in range(n_cells)])
    return ad.AnnData(sp.vstack(blocks, format="csr"), obs=obs)


def score(truth, found):
    """ARI, number of clusters, and whether the rare type has one of its own."""
    from sklearn.metrics import adjusted_rand_score

    rare = np.asarray(truth) == RARE
    overlap = [((found == c) & rare).sum() / ((found == c) | rare).sum() for c in np.unique(found)]
    row = {"clusters": len(overlap), "ARI": round(adjusted_rand_score(truth, found), 4)}
    return row | {"rare found": bool(len(overlap) > 1 and max(overlap) >= 0.5), "Jaccard": round(max(overlap), 3)}


def gmvae(path, where, seed, lap):
    """The job of GMVAE."""
    import scvi

    import mixvi

    scvi.settings.seed = seed
    cells = mixvi.data.from_zarr(path, obs_names=False) if where == "zarr" else ad.read_h5ad(path)
    lap("loading")
    mixvi.GMVAE.setup_anndata(cells)
    model = mixvi.GMVAE(cells)
    lap("setup")
    model.train(enable_progress_bar=False, accelerator="cpu")
    lap("training")
    model.annotate_store() if where == "zarr" else model.annotate()
    lap("annotation")
    cells = mixvi.data.from_zarr(path) if where == "zarr" else cells
    return cells.obs["type"], cells.obs["mixvi"].to_numpy(str)


def pca(path, where, seed, lap):
    """The job of PCA and Leiden."""
    import scanpy as sc

    cells = ad.read_h5ad(path)
    lap("loading")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    lap("setup")
    sc.pp.pca(cells, n_comps=30)
    sc.pp.neighbors(cells, random_state=seed)
    lap("training")
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    lap("annotation")
    return cells.obs["type"], cells.obs["leiden"].to_numpy(str)


METHODS = {"GMVAE": gmvae, "PCA and Leiden": pca}


def work(method, path, where, seed):
    """One row, in this process."""
    laps, last = {}, [STARTED]

    def lap(part):
        laps[part], last[0] = round(time.monotonic() - last[0], 1), time.monotonic()

    truth, found = METHODS[method](path, where, int(seed), lap)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return laps | {"GB": round(int(status["VmHWM"].split()[0]) / 2**20, 2)} | score(truth, found)


def markdown(path):
    """The rows so far, as a table."""
    rows = pd.read_csv(path)
    seeds = rows.groupby(["cells", "method", "where"])["seed"].nunique()
    packages = ", ".join(f"{name} {version(name)}" for name in ("mixvi", "scanpy", "torch"))
    few, largest = f"{seeds.min()} to {seeds.max()} seeds", rows["cells"].max()
    if seeds.min() == seeds.max():
        few = "one seed" if seeds.max() == 1 else f"{seeds.max()} seeds"
    lines = [
        f"{os.cpu_count()} cores, {platform.machine()}, {packages}. Each row has {few}. "
        f"The cores had other work too. Sets of more than {largest:,} cells were not run.", "",
        "| cells | method | cells in | loading, s | setup, s | training, s | annotation, s | all, s | peak, GB "
        "| clusters | ARI | rare type found |", "|" + "---|" * 12,
    ]  # fmt: skip
    for (n_cells, method, where), group in rows.groupby(["cells", "method", "where"]):
        mean = group.mean(numeric_only=True)
        parts = " | ".join(f"{mean[part]:.0f}" for part in PARTS)
        lines.append(
            f"| {n_cells:,} | {method} | {where} | {parts} | {mean[list(PARTS)].sum():.0f} | {group['GB'].max():.1f} "
            f"| {mean['clusters']:.0f} | {mean['ARI']:.2f} | {group['rare found'].sum()} of {len(group)} |"
        )
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", type=int, default=[3000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--zarr", action="store_true", help="GMVAE only: stream the cells from a store")
    parser.add_argument("--work", nargs=4, metavar=("METHOD", "FILE", "WHERE", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return print(json.dumps(work(*args.work)))
    path, where = RESULTS / "scale.csv", "zarr" if args.zarr else "memory"
    for n_cells in args.cells:
        for seed in range(args.seeds):
            run(path, n_cells, seed, ["GMVAE"] if args.zarr else args.methods, where)
    print("\n".join(markdown(path)))


def run(path, n_cells, seed, methods, where):
    """Rows of one simulation that are not in the file yet."""
    done = pd.read_csv(path)[KEYS].astype(str).to_numpy().tolist() if path.exists() else []
    methods = [method for method in methods if [str(n_cells), method, where, str(seed)] not in done]
    if not methods:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/cells.h5ad"
        simulate(n_cells, seed).write_h5ad(file)
        if where == "zarr":
            import mixvi

            mixvi.data.to_zarr(file, f"{folder}/cells.zarr", progress=False)
            file = f"{folder}/cells.zarr"
        for method in methods:
            command = [sys.executable, __file__, "--work", method, file, where, str(seed)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
            row = dict(zip(KEYS, (n_cells, method, where, seed), strict=True))
            row |= json.loads(ended.stdout.splitlines()[-1])
            print(row, flush=True)
            pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
