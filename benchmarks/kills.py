"""Kill processes and fill disks while mixvi writes, and look whether what was there before or after is whole.

    uv run python benchmarks/kills.py --number 200

Each trial is a process of its own. It saves a model over another one, or a model and its cells over others, trains
with a checkpoint in each epoch and saves the model over an earlier one, or runs ``mixvi fit`` over an earlier result.
After a random time it gets SIGKILL, SIGTERM or SIGINT; or it may write no file beyond a random size, as on a full disk.
Then another process reads the files. "Whole" is what was there before, or what was to be there after. "As before" is
the same for a training that was stopped before its first checkpoint: the earlier model is whole, and there is nothing
to continue from. Needs Linux or macOS.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork

import anndata as ad
import numpy as np
from scvi import settings

import mixvi
from mixvi import cli
from mixvi._file import read_file, write_file
from mixvi.model.unchanged import is_of_training

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
AS_BEFORE = 3  # exit code of a look that found the earlier model, and no checkpoint
PATIENCE = 120  # seconds until a process that was told to stop counts as hung
TRAIN = {"max_epochs": 20, "accelerator": "cpu", "enable_progress_bar": False}


def start(work: Callable[[], object], most: int | None = None) -> int:
    """Begin work in a process of its own, which may write files of ``most`` bytes, and give its number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        work()
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:  # noqa: BLE001  (whatever it is, the parent looks at the files)
        code = 1
    finally:
        os._exit(code)


def end(child: int) -> int:
    """Wait for a process, and give its exit code: minus the signal that ended it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"A process did not stop within {PATIENCE} s.")


def state(look: Callable[[], None]) -> str:
    """What a look at the files, in a process of its own, finds."""
    return {0: "whole", AS_BEFORE: "as before"}.get(end(start(look)), "DAMAGED")


def cells(seed=0):
    return mixvi.datasets.blobs(300, 60, n_clusters=3, n_conditions=2, kind="count", seed=seed)


def model(seed=0):
    adata = cells(seed)
    mixvi.GMVAE.setup_anndata(adata)
    return mixvi.GMVAE(adata)


class Saving:
    """``save(overwrite=True)``, over and over: of one model, then of another."""

    def __init__(self, folder: Path):
        self.folder = folder

    def prepare(self) -> None:
        for name in "ab":
            one = model()
            one.train(**TRAIN)
            one.save(self.folder.parent / name, overwrite=True)

    def work(self) -> None:
        models = [mixvi.GMVAE.load(self.folder.parent / name, False, accelerator="cpu") for name in "ab"]
        for _ in range(10):
            for one in models:
                one.save(self.folder, overwrite=True)

    def before(self) -> None:
        self.folder.mkdir()
        (self.folder / "model.pt").write_bytes((self.folder.parent / "a" / "model.pt").read_bytes())

    def look(self) -> None:
        wanted = [read_file(self.folder.parent / name / "model.pt")["model_state_dict"] for name in "ab"]
        found = mixvi.GMVAE.load(self.folder, False, accelerator="cpu").module.state_dict()
        assert any(all((found[name] == value).all() for name, value in one.items()) for one in wanted)


class Pair(Saving):
    """``save(overwrite=True, save_anndata=True)``, over and over: of one model and its cells, then of others."""

    def prepare(self) -> None:
        for i, name in enumerate("cd"):
            one = model(seed=i)
            one.train(**TRAIN)
            one.save(self.folder.parent / name, overwrite=True, save_anndata=True)

    def work(self) -> None:
        models = [mixvi.GMVAE.load(self.folder.parent / name, accelerator="cpu") for name in "cd"]
        for _ in range(10):
            for one in models:
                one.save(self.folder, overwrite=True, save_anndata=True)

    def before(self) -> None:
        shutil.copytree(self.folder.parent / "c", self.folder)

    def look(self) -> None:
        try:
            found = mixvi.GMVAE.load(self.folder, accelerator="cpu")
        except ValueError as error:
            if "stopped between" not in str(error):  # the two renames: both files are whole, and this is said
                raise
            found = mixvi.GMVAE.load(self.folder, False, accelerator="cpu")
            ad.read_h5ad(self.folder / "adata.h5ad")
        else:
            assert is_of_training(found)
        found.save(self.folder, overwrite=True)
        assert not list(self.folder.glob(".model*")), "a save removes what a killed one left"


class Training:
    """``train()`` of a GMVAE with a checkpoint in each epoch: pretraining, initialisation, fine-tuning, calibration.

    Then the model is saved over one that is not trained.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole = folder.parent / "history.pt"  # of a run that nothing stopped

    def prepare(self) -> None:
        settings.seed = 0
        whole = model()
        whole.save(self.folder.parent / "earlier", overwrite=True)
        whole.train(**TRAIN)
        write_file(self.whole, whole.history)

    def before(self) -> None:
        shutil.copytree(self.folder.parent / "earlier", self.folder)

    def work(self) -> None:
        settings.logging_dir, settings.seed = self.folder, 0
        new = model()
        new.train(**TRAIN, checkpoint_minutes=0)
        new.save(self.folder, overwrite=True)

    def look(self) -> None:
        wanted, left = read_file(self.whole), list(self.folder.glob("training-*.ckpt"))
        found = mixvi.GMVAE.load(self.folder, False, accelerator="cpu")
        if found.is_trained_:
            self.compare(found.history, wanted)
        elif not left:
            raise SystemExit(AS_BEFORE)
        for path in left:
            again = model()
            again.train(**TRAIN, ckpt_path=str(path))
            self.compare(again.history, wanted)

    def compare(self, history: dict, wanted: dict) -> None:
        assert history.keys() == wanted.keys()
        for name, losses in wanted.items():
            found = history[name].to_numpy(float)
            np.testing.assert_allclose(found, losses.to_numpy(float), rtol=1e-4, atol=1e-5)


class Command:
    """``mixvi fit`` over an earlier result."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.out = folder / "out.h5ad"

    def prepare(self) -> None:
        pass

    def before(self) -> None:
        self.folder.mkdir()
        earlier = cells()
        earlier.write_h5ad(self.folder / "in.h5ad")
        earlier.uns["earlier"] = 1
        earlier.write_h5ad(self.out)

    def work(self) -> None:
        options = ["--force", "--max-epochs", str(TRAIN["max_epochs"]), "--n-clusters", "3"]
        cli.app(["fit", str(self.folder / "in.h5ad"), "--out", str(self.out), *options])

    def look(self) -> None:
        np.testing.assert_array_equal(ad.read_h5ad(self.folder / "in.h5ad").X, cells().X)
        found = ad.read_h5ad(self.out)
        assert ("earlier" in found.uns) != ("X_mixvi" in found.obsm)
        for path in self.folder.glob("training-*.ckpt"):
            read_file(path, "checkpoint")
        for path in self.folder.glob("out-model-*"):
            mixvi.GMVAE.load(path, False, accelerator="cpu")


KINDS = (Saving, Pair, Training, Command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=200, help="of trials")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, found = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        model().train(**TRAIN)  # loads and compiles all that the processes share
        seconds, sizes = {}, {}
        for kind in KINDS:
            whole = kind(Path(place, kind.__name__))
            end(start(whole.prepare))
            whole.before()
            begun = time.monotonic()
            end(start(whole.work))
            seconds[kind] = time.monotonic() - begun
            print(f"{kind.__name__}: {seconds[kind]:.1f} s undisturbed", flush=True)
            sizes[kind] = max(
                [path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()], default=10**6
            )
        for i in range(options.number):
            kind, how = KINDS[i % len(KINDS)], rng.choice([*SIGNALS, "full disk"])
            trial = kind(Path(place, f"trial {i}"))
            trial.before()
            if how == "full disk":
                ended = end(start(trial.work, most=rng.randrange(1, sizes[kind])))
            else:
                child = start(trial.work)
                time.sleep(rng.uniform(0, seconds[kind]))
                os.kill(child, how)  # a process that is over is still there until it is waited for
                ended = end(child)
            left = state(trial.look)
            name = how if isinstance(how, str) else how.name
            found[kind.__name__, name, left] += 1
            if left == "DAMAGED":
                print(f"trial {i}: {kind.__name__}, {name}, exit code {ended}: damaged", flush=True)
    for (kind, how, left), number in sorted(found.items()):
        print(f"{kind:10} {how:10} {left:9} {number}")
    whole, before, damaged = (
        sum(number for (*_, left), number in found.items() if left == wanted)
        for wanted in ("whole", "as before", "DAMAGED")
    )
    print(f"{whole + before} of {options.number} whole, {before} of them as before, {damaged} damaged")
    raise SystemExit(min(damaged, 1))


if __name__ == "__main__":
    main()
