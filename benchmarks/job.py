"""Time of the whole job in a new process: from counts to clusters in .obs, imports included.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/job.py --methods PCA GMVAE SCVI

pbmc3k, 2,638 labelled cells x 2,000 genes, each method at its defaults: GMVAE with `annotate`, scvi-tools' SCVI with
neighbours and Leiden, PCA with neighbours and Leiden. ``--cells 20000`` takes so many cells of the simulation of
scale.py instead. (Copies of real cells would be in both training and validation, and training would not settle.)
Packages are compiled to bytecode first, as any installation is after its first use: otherwise each process compiles
12,000 files. Writes benchmarks/results/job.csv and .md.
"""

import argparse
import compileall
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def load(n_cells):
    """Counts of the most variable genes."""
    import anndata as ad
    import scanpy as sc
    from scale import simulate

    if n_cells:
        return simulate(n_cells, 0)
    cells = ad.read_h5ad(Path(os.environ["MIXVI_DATA_DIR"]) / "pbmc3k.h5ad")
    cells = cells[cells.obs["cell_type"] != "unassigned"].copy()
    sc.pp.filter_genes(cells, min_cells=3)
    sc.pp.highly_variable_genes(cells, n_top_genes=2000, flavor="seurat_v3", subset=True)
    return cells


def work(method, path):
    """The job itself, in a process of its own."""
    import anndata as ad

    cells = ad.read_h5ad(path)
    if method == "GMVAE":
        import mixvi

        mixvi.GMVAE.setup_anndata(cells)
        model = mixvi.GMVAE(cells)
        model.train(enable_progress_bar=False)
        model.annotate()
        return
    import scanpy as sc

    if method == "SCVI":
        import scvi

        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells)
        model.train(enable_progress_bar=False)
        cells.obsm["X_pca"] = model.get_latent_representation()
    else:
        sc.pp.normalize_total(cells, target_sum=1e4)
        sc.pp.log1p(cells)
        sc.pp.pca(cells, n_comps=30)
    sc.pp.neighbors(cells, use_rep="X_pca")
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=["PCA", "GMVAE", "SCVI"])
    parser.add_argument("--cells", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work", nargs=2, metavar=("METHOD", "FILE"))
    args = parser.parse_args()
    if args.work:
        return work(*args.work)
    import pandas as pd

    path, file = RESULTS / "job.csv", Path(tempfile.gettempdir()) / f"job-{os.getpid()}.h5ad"
    cells = load(args.cells)
    cells.write_h5ad(file)
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)
    rows = []
    for repeat in range(args.repeats):
        for method in args.methods:
            start = time.monotonic()
            process = subprocess.Popen([sys.executable, __file__, "--work", method, str(file)])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise RuntimeError(f"{method} ended with status {status}.")
            seconds, memory = time.monotonic() - start, usage.ru_maxrss / 1e6  # Linux counts kilobytes
            row = {"cells": cells.n_obs, "method": method, "repeat": repeat, "seconds": round(seconds, 1)}
            rows.append(row | {"GB": round(memory, 2)})
            print(rows[-1], flush=True)
    file.unlink()
    pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), index=False)
    grouped = pd.read_csv(path).groupby(["cells", "method"])
    table = grouped["seconds"].agg(["median", "min", "count"]).assign(memory=grouped["GB"].max())
    packages = ", ".join(f"{name} {version(name)}" for name in ("mixvi", "scvi-tools", "scanpy", "torch"))
    lines = [f"{os.cpu_count()} cores, {platform.machine()}, {packages}.", ""]
    lines += ["| cells | method | seconds, median | least | peak memory, GB | runs |", "|---" * 6 + "|"]
    lines += [
        f"| {cells:,} | {method} | {row['median']:.0f} | {row['min']:.0f} | {row['memory']:.1f} | {row['count']:.0f} |"
        for (cells, method), row in table.iterrows()
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
