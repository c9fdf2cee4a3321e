"""Data sets: small ones from other packages, simulated clusters, and public files with checksums.

If the environment variable ``MIXVI_DATA_DIR`` names a folder, files are read from there. Other files are downloaded
once, checked, and kept in the user's cache folder (pooch).
"""

import gzip
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pooch
import requests
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix

from mixvi._tell import quiet

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Source(NamedTuple):
    """A public file: its address and its checksum."""

    url: str
    checksum: str


KANG_TYPES = {  # name in the public file: name in tutorials and benchmarks
    "B cells": "B", "CD14+ Monocytes": "CD14+ Mono", "CD4 T cells": "CD4 T", "CD8 T cells": "CD8 T",
    "Dendritic cells": "Dendritic", "FCGR3A+ Monocytes": "FCGR3A+ Mono", "Megakaryocytes": "Megakaryocyte",
    "NK cells": "NK",
}  # fmt: skip

SOURCES = {
    "pbmc3k": Source(
        "https://cf.10xgenomics.com/samples/cell-exp/1.1.0/pbmc3k/pbmc3k_filtered_gene_bc_matrices.tar.gz",
        "sha256:847d6ebd9a1ec9a768f2be7e40ca42cbfe75ebeb6d76a4c24167041699dc28b5",
    ),
    "kang": Source(
        "https://exampledata.scverse.org/pertpy/kang_2018.h5ad",
        "sha256:e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830",
    ),
    "mnist": Source(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
}
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION = {
    "x_train": Source(FASHION_URL + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "y_train": Source(FASHION_URL + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    "x_test": Source(FASHION_URL + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    "y_test": Source(FASHION_URL + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
}


def pbmc68k_reduced() -> AnnData:
    """700 peripheral blood cells x 765 genes (Zheng 2017), part of scanpy; works offline.

    Returns
    -------
    ``.X``: log(1 + counts per 10,000). ``.layers["counts"]``: raw counts, computed from ``.X`` and scanpy's
    totals. ``.obs["cell_type"]``: scanpy's labels.
    """
    shipped = sc.datasets.pbmc68k_reduced()
    log_normalised = csr_matrix(shipped.raw.X, dtype=np.float32)
    counts = log_normalised.expm1().multiply(shipped.obs["n_counts"].to_numpy()[:, None] / 1e4).tocsr()
    counts.data = np.round(counts.data).astype(np.float32)
    counts.eliminate_zeros()
    obs = shipped.obs[["bulk_labels", "phase"]].rename(columns={"bulk_labels": "cell_type"})
    var = pd.DataFrame(index=shipped.raw.var_names)
    return ad.AnnData(log_normalised, obs=obs, var=var, layers={"counts": counts})


def digits() -> AnnData:
    """1,797 images of handwritten digits, 8 x 8 pixels, part of scikit-learn; works offline.

    Returns
    -------
    ``.X``: (1797, 64) grey values in [0, 1]. ``.obs["digit"]``: ``"0"`` to ``"9"``. ``.uns["image_shape"]``: (8, 8).
    """
    from sklearn.datasets import load_digits

    shipped = load_digits()
    return _images(shipped.images / 16, shipped.target, "digit", [str(k) for k in range(10)])


def blobs(
    n_cells: int = 1000,
    n_genes: int = 50,
    n_clusters: int = 5,
    n_conditions: int = 1,
    kind: Literal["real", "count"] = "real",
    seed: int = 0,
    separation: float = 6.0,
) -> AnnData:
    """Simulated data with known clusters: a Gaussian mixture in a plane, mapped linearly to genes.

    The means of clusters lie on a circle, and each cluster has standard deviation 1. Each condition shifts all its
    cells by one random vector, about half as long as the radius of the circle. Clusters and conditions are independent.

    Parameters
    ----------
    n_cells, n_genes, n_clusters, n_conditions
        Numbers of each, at least 1.
    kind
        ``"real"`` adds Gaussian noise of standard deviation 0.5. ``"count"`` draws Poisson counts with a mean of about
        20 per gene; their rates are the softmax of the mapped values.
    seed
        Of all draws.
    separation
        Distance between means of neighbouring clusters, in standard deviations. At 6, about 3 cells in 1,000 are nearer
        to the mean of another cluster than to their own. At 10, none is.

    Returns
    -------
    ``.X``: (n, g) values. ``.obs["cluster"]`` and ``.obs["condition"]``: the truth. ``.obsm["z"]``: (n, 2) the place in
    the plane.

    Raises
    ------
    ValueError
        If a number is below 1, or ``kind`` is not known.
    """
    if min(n_cells, n_genes, n_clusters, n_conditions) < 1:
        raise ValueError("blobs needs at least one cell, gene, cluster and condition.")
    if kind not in ("real", "count"):
        raise ValueError(f"kind={kind!r} is not known; it is 'real' or 'count'.")
    rng = np.random.default_rng(seed)
    cluster = rng.integers(n_clusters, size=n_cells)
    condition = rng.integers(n_conditions, size=n_cells)
    radius = 0.0 if n_clusters == 1 else separation / 2 / np.sin(np.pi / n_clusters)
    angle = 2 * np.pi * cluster / n_clusters
    z = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(size=(n_cells, 2))
    map_, shift = rng.normal(size=(2, n_genes)), rng.normal(size=(n_conditions, n_genes))
    signal = z @ map_ / np.sqrt(2) + (radius / 2) * shift[condition] * (n_conditions > 1)
    if kind == "real":
        x = signal + 0.5 * rng.normal(size=signal.shape)
    else:
        rate = np.exp(signal / max(radius, 1.0))
        x = rng.poisson(20 * n_genes * rate / rate.sum(axis=1, keepdims=True))
    obs = pd.DataFrame(
        {
            "cluster": pd.Categorical.from_codes(cluster, [f"blob {k}" for k in range(n_clusters)]),
            "condition": pd.Categorical.from_codes(condition, [f"condition {k}" for k in range(n_conditions)]),
        },
        index=[f"cell {i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene {j}" for j in range(n_genes)])
    adata = ad.AnnData(x.astype(np.float32), obs=obs, var=var)
    adata.obsm["z"] = z
    return adata


def pbmc3k() -> AnnData:
    """2,700 peripheral blood cells (10x Genomics).

    Returns
    -------
    ``.X``: raw counts. The public file has no labels. If ``MIXVI_DATA_DIR`` has ``pbmc3k.h5ad``, that file is read; it
    may have ``.obs["cell_type"]``.
    """
    if (path := _local("pbmc3k.h5ad")) is not None:
        return ad.read_h5ad(path)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(_fetch(SOURCES["pbmc3k"])) as archive:
        archive.extractall(folder, filter="data")
        adata = sc.read_10x_mtx(next(Path(folder).rglob("matrix.mtx")).parent)
    return adata


def kang() -> AnnData:
    """Peripheral blood cells of lupus patients, half of them stimulated with interferon-beta (Kang 2018).

    Returns
    -------
    24,673 cells. ``.X``: raw counts. ``.obs["condition"]``: ``"control"`` or ``"stimulated"``. ``.obs["cell_type"]``:
    ``"B"``, ``"CD14+ Mono"``, ``"CD4 T"`` and so on. ``.obs["donor"]``: the patient. If ``MIXVI_DATA_DIR`` has
    ``kang_pbmc.h5ad``, that file is read instead.
    """
    if (path := _local("kang_pbmc.h5ad")) is not None:
        return ad.read_h5ad(path)
    adata = ad.read_h5ad(_fetch(SOURCES["kang"]))
    adata.obs["condition"] = adata.obs["label"].map({"ctrl": "control", "stim": "stimulated"}).astype("category")
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace(KANG_TYPES).astype("category")
    adata.obs = adata.obs.rename(columns={"replicate": "donor"})  # type: ignore[union-attr]  # read into memory
    return adata


def pbmc_3tech() -> AnnData:
    """Peripheral blood cells of three chemistries of 10x Genomics: 3' version 1, 3' version 2 and 5'.

    Returns
    -------
    5,700 cells x 3,965 genes. ``.X``: raw counts. ``.obs["batch"]``: the chemistry. ``.obs["cell_type"]``: the cell
    type, or ``"unassigned"``.

    Raises
    ------
    ValueError
        If ``pbmc_3tech.h5ad`` is not in the folder ``MIXVI_DATA_DIR``. No public file has these cells together.
    """
    if (path := _local("pbmc_3tech.h5ad")) is not None:
        return ad.read_h5ad(path)
    raise ValueError(
        "pbmc_3tech.h5ad cannot be downloaded. Put a file of that name, with raw counts, .obs['batch'] and "
        ".obs['cell_type'], into a folder, and set the environment variable MIXVI_DATA_DIR to that folder."
    )


def mnist() -> AnnData:
    """70,000 images of handwritten digits, 28 x 28 (LeCun 1998).

    Returns
    -------
    ``.X``: (70000, 784) grey values in [0, 1], the 60,000 training images first. ``.obs["digit"]``: ``"0"`` to ``"9"``.
    ``.obs["split"]``: ``"train"`` or ``"test"``. ``.uns["image_shape"]``: (28, 28). If ``MIXVI_DATA_DIR`` has
    ``mnist.npz``, that file is read instead of the download.
    """
    with np.load(_local("mnist.npz") or _fetch(SOURCES["mnist"])) as arrays:
        return _train_and_test(dict(arrays), "digit", [str(k) for k in range(10)])


def fashion_mnist() -> AnnData:
    """70,000 images of clothes, 28 x 28 (Xiao 2017).

    Returns
    -------
    As `mnist`, with ``.obs["item"]``, the kind of clothes, instead of ``"digit"``. If ``MIXVI_DATA_DIR`` has
    ``fashion_mnist.npz``, that file is read instead of the download.
    """
    if (path := _local("fashion_mnist.npz")) is not None:
        with np.load(path) as arrays:
            return _train_and_test(dict(arrays), "item", FASHION_CLASSES)
    arrays = {name: _read_idx(_fetch(source)) for name, source in FASHION.items()}
    return _train_and_test(arrays, "item", FASHION_CLASSES)


def _local(name: str) -> Path | None:
    """The file of that name in ``MIXVI_DATA_DIR``, if there is one."""
    folder = os.environ.get("MIXVI_DATA_DIR")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise ValueError(f"MIXVI_DATA_DIR={folder!r} is not a folder; set it to one, or unset it to download files.")
    path = Path(folder) / name
    return path if path.is_file() else None


def _fetch(source: Source) -> Path:
    """Path of a public file in the cache, downloaded and checked if it is not there yet."""
    try:
        with quiet(pooch.get_logger().name):
            return Path(pooch.retrieve(source.url, source.checksum, path=pooch.os_cache("mixvi"), progressbar=False))
    except ValueError as error:
        raise ValueError(
            f"The download of {source.url} is wrong: its checksum is not {source.checksum}. The download may have been "
            "cut, or the file has changed. Nothing was kept. Try again, or put the file that the docstring of this "
            "function names into a folder, and set the environment variable MIXVI_DATA_DIR to that folder."
        ) from error
    except (OSError, requests.RequestException) as error:
        raise ConnectionError(
            f"{source.url} cannot be reached, or the download was cut. Nothing was kept. Try again, or put the file "
            "that the docstring of this function names into a folder, and set the environment variable "
            "MIXVI_DATA_DIR to that folder."
        ) from error


def _read_idx(path: Path) -> np.ndarray:
    """An array in LeCun's idx format, gzipped: two zero bytes, type, rank, sizes, then the values."""
    with gzip.open(path) as file:
        rank = file.read(4)[3]
        shape = np.frombuffer(file.read(4 * rank), ">u4")
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _train_and_test(arrays: dict[str, np.ndarray], name: str, classes) -> AnnData:
    """Training and test images as one AnnData."""
    images = np.concatenate([arrays["x_train"], arrays["x_test"]])
    adata = _images(images / np.float32(255), np.concatenate([arrays["y_train"], arrays["y_test"]]), name, classes)
    adata.obs["split"] = pd.Categorical(["train"] * len(arrays["x_train"]) + ["test"] * len(arrays["x_test"]))
    return adata


def _images(images: np.ndarray, target: np.ndarray, name: str, classes) -> AnnData:
    """Images (n, height, width) and their classes (n,) as an AnnData with one row for each image."""
    n, height, width = images.shape
    obs = pd.DataFrame({name: pd.Categorical.from_codes(target, list(classes))}, index=[str(i) for i in range(n)])
    var = pd.DataFrame(index=[f"pixel {row} {column}" for row in range(height) for column in range(width)])
    x = images.reshape(n, -1).astype(np.float32)
    return ad.AnnData(x, obs=obs, var=var, uns={"image_shape": np.array([height, width])})
