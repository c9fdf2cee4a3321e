"""One command for benchmarks: every method on every set, one process and one row or more for each run.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/run.py clustering --seeds 5
    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/run.py integration --methods GMVAE scVI

A task is a file beside this one. It has ``SETS`` and ``METHODS``; ``run(set, method, seed)``, which returns rows as
dictionaries; ``DEFAULT``, the methods that run if none is named; and ``summarise(frame)``, which writes tables and
pictures. This command adds to each row the seconds, if it has none, the peak memory of its process, and the versions. A
method whose package is not installed is left out, with a line.

Rows are kept in benchmarks/results/TASK.csv. The command goes on where it ended.
"""

import argparse
import importlib
import multiprocessing
import resource
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"
TASKS = ("clustering", "integration")
PACKAGES = ("mixvi", "scvi-tools", "torch", "scanpy")
KEYS = ["set", "run", "seed"]


def measured(task, name, method, seed):
    """Rows of one run, with its seconds and peak memory in GB; called in a process of its own."""
    module = importlib.import_module(task)
    start = time.monotonic()
    rows = pd.DataFrame(module.run(name, method, seed))
    seconds = round(time.monotonic() - start, 1)
    rows.insert(0, "set", name)
    rows.insert(1, "run", method)
    rows.insert(2, "seed", seed)
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = round(max(resource.getrusage(one).ru_maxrss for one in whose) / 2**20, 2)
    return rows.assign(seconds=rows.get("seconds", seconds), memory=memory)


def versions():
    """Of the packages, and the commit of mixvi."""
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join([*(f"{name} {version(name)}" for name in PACKAGES), commit.stdout.strip()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--summary", action="store_true", help="Only write tables and pictures from the rows.")
    args = parser.parse_args()
    task, path, now = importlib.import_module(args.task), RESULTS / f"{args.task}.csv", versions()
    for asked, known in ((args.sets or [], task.SETS), (args.methods or [], task.METHODS)):
        if unknown := set(asked) - set(known):
            parser.error(f"{sorted(unknown)} not known; {args.task} has {list(known)}")
    done = pd.read_csv(path, dtype={"seed": int}) if path.exists() else pd.DataFrame(columns=KEYS)
    finished = set(done[KEYS].itertuples(index=False, name=None))
    runs = [
        (name, method, seed)
        for seed in range(0 if args.summary else args.seeds)
        for name in args.sets or task.SETS
        for method in args.methods or task.DEFAULT
        if (name, method, seed) not in finished
    ]
    for run in runs:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            try:
                rows = process.submit(measured, args.task, *run).result()
            except ImportError as error:
                if (error.name or "").startswith("mixvi"):
                    raise
                print(f"{run[1]}: {error}. Left out.", flush=True)
                continue
        print(rows.to_string(header=False, index=False), flush=True)
        rows = rows.assign(versions=now).round(4)
        frame = pd.concat([pd.read_csv(path), rows]) if path.exists() else rows
        frame.to_csv(path.with_suffix(".tmp"), index=False)
        path.with_suffix(".tmp").replace(path)
    if not path.exists():
        parser.error("No run has ended, so there is nothing to summarise.")
    frame = pd.read_csv(path)
    if frame["versions"].nunique(dropna=False) > 1:
        print("These rows are of several versions:", *frame["versions"].unique(), sep="\n  ")
    task.summarise(frame)


if __name__ == "__main__":
    main()
