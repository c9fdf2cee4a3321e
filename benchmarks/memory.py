"""How much memory a process keeps after many fits, and which files they leave behind.

    uv run python benchmarks/memory.py --fits 50

Each fit makes new cells and a new model, trains it, annotates the cells, and deletes both. The first fits load
libraries, so they do not count.
"""

import argparse
import ctypes
import gc
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import psutil

BEFORE = 5  # fits that load libraries


def fit(name: str, seed: int, n_cells: int, n_genes: int) -> None:
    import mixvi

    adata = mixvi.datasets.blobs(n_cells, n_genes, n_clusters=3, n_conditions=2, kind="count", seed=seed)
    cls = getattr(mixvi, name)
    cls.setup_anndata(adata, batch_key="condition" if name in ("CVAE", "GMVAE") else None)
    model = cls(adata)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    model.annotate(clustering=None)


def resident() -> float:
    """Megabytes that the process holds, without what the allocator keeps for later."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=50)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=500)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import mixvi.model  # noqa: F401  (torch makes the folder of its compiler's cache when Lightning is imported)

    with tempfile.TemporaryDirectory() as folder:
        work, temporary = Path(folder, "work"), Path(folder, "temporary")
        work.mkdir()
        temporary.mkdir()
        os.chdir(work)
        tempfile.tempdir = str(temporary)
        for i in range(-BEFORE, options.fits):
            if i == 0:
                before = resident()
            fit(("AE", "VAE", "CVAE", "GMVAE")[i % 4], i + BEFORE, options.cells, options.genes)
            if (i + 1) % 10 == 0 and i > 0:
                print(f"{i + 1} fits: {resident() - before:+.1f} MB", flush=True)
        print(f"files left behind: {sorted(map(str, files(work, temporary))) or 'none'}")
        os.chdir(folder)


if __name__ == "__main__":
    main()
