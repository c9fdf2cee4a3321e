"""Loaders: what ships, the toy, a folder, and downloads from a local server."""

import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from mixvi import datasets
from mixvi.datasets import Source


def test_counts_of_the_shipped_cells_are_restored():
    adata = datasets.pbmc68k_reduced()
    counts = adata.layers["counts"]
    assert adata.shape == (700, 765)
    assert (counts.data == np.round(counts.data)).all()
    assert counts.data.min() >= 1
    shipped = sc.datasets.pbmc68k_reduced()
    unrounded = np.expm1(shipped.raw.X.toarray()) * shipped.obs["n_counts"].to_numpy()[:, None] / 1e4
    assert np.abs(unrounded - counts.toarray()).max() < 0.1  # whole numbers, but for the rounding of floats
    assert adata.obs["cell_type"].nunique() == 10


def test_digits_are_images_between_0_and_1():
    adata = datasets.digits()
    assert adata.shape == (1797, 64)
    assert (adata.X.min(), adata.X.max()) == (0, 1)
    assert list(adata.uns["image_shape"]) == [8, 8]
    assert adata.obs["digit"].nunique() == 10


@pytest.mark.parametrize("n_clusters", [1, 3, 8])
def test_blobs_are_the_mixture_they_say(n_clusters):
    adata = datasets.blobs(3000, 20, n_clusters, n_conditions=2)
    assert adata.obs["cluster"].nunique() == n_clusters
    found = GaussianMixture(n_clusters, n_init=3, random_state=0).fit_predict(adata.obsm["z"])
    assert adjusted_rand_score(adata.obs["cluster"], found) > 0.98
    assert abs(adjusted_rand_score(adata.obs["cluster"], adata.obs["condition"])) < 0.01


def test_blobs_of_counts_and_wrong_sizes():
    adata = datasets.blobs(kind="count")
    assert (np.round(adata.X) == adata.X).all()
    assert adata.X.mean() == pytest.approx(20, rel=0.05)
    np.testing.assert_array_equal(adata.X, datasets.blobs(kind="count").X)
    assert (adata.X != datasets.blobs(kind="count", seed=1).X).any()
    with pytest.raises(ValueError, match="at least one"):
        datasets.blobs(n_clusters=0)
    with pytest.raises(ValueError, match="'tpm' is not known"):
        datasets.blobs(kind="tpm")


class Server:
    """Files by name over HTTP; `cut` sends half of what it announced."""

    def __init__(self, files):
        self.files, self.cut = files, False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler):
                content = self.files.get(handler.path.lstrip("/"))
                handler.send_response(404 if content is None else 200)
                handler.send_header("Content-Length", str(len(content or b"")))
                handler.end_headers()
                handler.wfile.write((content or b"")[: len(content or b"") // (2 if self.cut else 1)])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def source(self, name):
        content = self.files[name]
        return Source(
            f"http://127.0.0.1:{self.http.server_port}/{name}", "sha256:" + hashlib.sha256(content).hexdigest()
        )


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def idx(array):
    """An array in LeCun's format, gzipped."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def h5ad(adata, folder):
    adata.write_h5ad(folder / "file.h5ad")
    return (folder / "file.h5ad").read_bytes()


def mtx_archive():
    """A 10x archive of 3 genes x 2 cells."""
    matrix = "%%MatrixMarket matrix coordinate integer general\n3 2 3\n1 1 4\n3 1 1\n2 2 7\n"
    names = {"genes.tsv": "id1\tA\nid2\tB\nid3\tC\n", "barcodes.tsv": "cell1-1\ncell2-1\n", "matrix.mtx": matrix}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in names.items():
            info = tarfile.TarInfo(f"filtered_gene_bc_matrices/hg19/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return file.getvalue()


IMAGES = {
    "x_train": np.arange(4 * 9).reshape(4, 3, 3) * 7 % 256,
    "y_train": np.array([0, 1, 9, 3]),
    "x_test": np.full((2, 3, 3), 255),
    "y_test": np.array([5, 0]),
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The public files, small, on a local server; an empty cache."""
    obs = pd.DataFrame(
        {"label": ["ctrl", "stim"], "cell_type": ["B cells", "NK cells"], "replicate": ["p1", "p2"]}, index=["a", "b"]
    )
    files = {
        "mnist.npz": npz(**IMAGES),
        "kang.h5ad": h5ad(ad.AnnData(csr_matrix(np.eye(2, dtype=np.float32)), obs=obs), tmp_path),
        "pbmc3k.tar.gz": mtx_archive(),
    } | {f"{name}.gz": idx(array) for name, array in IMAGES.items()}
    server = Server(files)
    names = {"mnist": "mnist.npz", "kang": "kang.h5ad", "pbmc3k": "pbmc3k.tar.gz"}
    monkeypatch.setattr(datasets, "SOURCES", {key: server.source(name) for key, name in names.items()})
    monkeypatch.setattr(datasets, "FASHION", {name: server.source(f"{name}.gz") for name in IMAGES})
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.delenv("MIXVI_DATA_DIR", raising=False)
    yield server
    server.http.shutdown()


def cached(tmp_path):
    return list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else []


@pytest.mark.parametrize(("loader", "column"), [(datasets.mnist, "digit"), (datasets.fashion_mnist, "item")])
def test_images_are_downloaded_once(loader, column, server, tmp_path):
    adata = loader()
    assert adata.shape == (6, 9)
    np.testing.assert_allclose(adata.X[:4].reshape(4, 3, 3), IMAGES["x_train"] / 255, rtol=1e-6)
    assert list(adata.obs["split"]) == ["train"] * 4 + ["test"] * 2
    np.testing.assert_array_equal(adata.obs[column].cat.codes, [0, 1, 9, 3, 5, 0])
    server.files.clear()  # from here on only the cache can answer
    np.testing.assert_array_equal(loader().X, adata.X)


def test_cells_are_downloaded(server):
    adata = datasets.kang()
    assert list(adata.obs["condition"]) == ["control", "stimulated"]
    assert list(adata.obs["cell_type"]) == ["B", "NK"]  # named as in the tutorials
    assert list(adata.obs["donor"]) == ["p1", "p2"]
    adata = datasets.pbmc3k()
    np.testing.assert_array_equal(adata.X.toarray(), [[4, 0, 1], [0, 7, 0]])
    assert list(adata.var_names) == ["A", "B", "C"]


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    server.files["mnist.npz"] = server.files["mnist.npz"][:-1] + b"x"
    with pytest.raises(ValueError, match="its checksum is not sha256.*MIXVI_DATA_DIR"):
        datasets.mnist()
    assert cached(tmp_path) == []


def test_a_cut_download_leaves_nothing_behind(server, tmp_path):
    server.cut = True
    with pytest.raises((ValueError, ConnectionError), match="cut"):
        datasets.mnist()
    assert cached(tmp_path) == []
    server.cut = False
    assert datasets.mnist().n_obs == 6


def test_no_network_is_said(server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ConnectionError, match="cannot be reached.*MIXVI_DATA_DIR"):
        datasets.mnist()
    assert cached(tmp_path) == []


def test_a_missing_file_on_the_server_is_said(server, tmp_path):
    del server.files["mnist.npz"]
    with pytest.raises((ValueError, ConnectionError), match="MIXVI_DATA_DIR"):
        datasets.mnist()
    assert cached(tmp_path) == []


def test_a_folder_takes_the_place_of_downloads(tmp_path, monkeypatch, server):
    server.http.shutdown()
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mnist.npz").write_bytes(npz(**IMAGES))
    (folder / "fashion_mnist.npz").write_bytes(npz(**IMAGES))
    for name in ("pbmc3k.h5ad", "kang_pbmc.h5ad"):
        datasets.blobs(5, 4, kind="count").write_h5ad(folder / name)
    monkeypatch.setenv("MIXVI_DATA_DIR", str(folder))
    assert datasets.mnist().shape == datasets.fashion_mnist().shape == (6, 9)
    assert datasets.pbmc3k().shape == datasets.kang().shape == (5, 4)


@pytest.mark.data
def test_real_files_of_a_folder():
    assert datasets.pbmc3k().n_obs == 2700
    assert set(datasets.kang().obs["condition"]) == {"control", "stimulated"}
    assert datasets.mnist().shape == (70_000, 784)
    assert datasets.fashion_mnist().obs["item"].value_counts().eq(7000).all()


def test_three_chemistries_come_from_the_folder_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXVI_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="MIXVI_DATA_DIR"):
        datasets.pbmc_3tech()
    datasets.blobs(20, 5, kind="count").write_h5ad(tmp_path / "pbmc_3tech.h5ad")
    assert datasets.pbmc_3tech().shape == (20, 5)
