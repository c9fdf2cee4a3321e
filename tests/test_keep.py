"""What a command keeps on a full disk. What it keeps when it is stopped is tested in test_cli.py."""

import errno
import os

import anndata as ad

import mixvi
from tests.test_cli import files, run  # noqa: F401


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_with_what_failed_first(files, monkeypatch):  # noqa: F811
    source, out = files
    out.write_text("precious")
    options = ["fit", source, "--out", out, "--max-epochs", 1, "--n-clusters", 2, "--force"]
    with monkeypatch.context() as patch:
        patch.setattr(ad.AnnData, "write_h5ad", full)
        result = run(*options)
        first = f"{out} could not be written: No space left on device. The trained model is in"
        assert (result.exit_code, first in " ".join(result.output.split())) == (1, True)
        assert len(os.listdir(out.parent)) == 3
        patch.setattr(os, "fsync", full)  # as when the model is written
        result = run(*options)
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert f"mixvi: {out} could not be written: No space left on device. The trained model could not be saved" in text
    assert out.read_text() == "precious"
    assert len(os.listdir(out.parent)) == 3
    with monkeypatch.context() as patch:
        patch.setattr(mixvi.GMVAE, "train", full)
        assert "The training stopped, because a file could not be written" in run(*options).output
