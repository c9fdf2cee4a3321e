"""Files that a command reads, and results that go back to all genes."""

import h5py
import numpy as np
import pytest
from scipy.io import mmwrite
from scipy.sparse import csc_matrix, csr_matrix

from mixvi import datasets
from mixvi._cells_file import carry_results, check_files, check_folder, most_variable, read_cells


@pytest.fixture
def cells():
    found = datasets.blobs(40, 12, n_clusters=2, n_conditions=2, kind="count")
    found.X = csr_matrix(found.X)
    return found


def write_10x_h5(cells, path):
    """As Cell Ranger 3 writes it."""
    x = csc_matrix(cells.X.T)  # genes x cells
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        for name, values in (("data", x.data), ("indices", x.indices), ("indptr", x.indptr), ("shape", x.shape)):
            matrix[name] = np.asarray(values, dtype=int)
        matrix["barcodes"] = np.array(cells.obs_names, dtype="S")
        names = np.array([*cells.var_names[:-1], cells.var_names[0]], dtype="S")  # a name comes twice
        features = {"id": np.array(cells.var_names, dtype="S"), "name": names}
        features |= {"feature_type": np.full(len(names), b"Gene Expression"), "genome": np.full(len(names), b"x")}
        for key, values in features.items():
            matrix[f"features/{key}"] = values


def test_files_of_cell_ranger(cells, tmp_path):
    write_10x_h5(cells, tmp_path / "cells.h5")
    found = read_cells(tmp_path / "cells.h5")
    np.testing.assert_array_equal(found.X.toarray(), cells.X.toarray())
    assert found.var_names.is_unique
    folder = tmp_path / "matrix"
    folder.mkdir()
    mmwrite(folder / "matrix.mtx", cells.X.T)
    (folder / "genes.tsv").write_text("".join(f"{name}\t{name}\n" for name in cells.var_names))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in cells.obs_names))
    np.testing.assert_array_equal(read_cells(folder).X.toarray(), cells.X.toarray())


def test_an_h5ad_keeps_its_names(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert (read_cells(tmp_path / "cells.h5ad").var_names == cells.var_names).all()


@pytest.mark.parametrize("name", ["cells.h5", "cells.h5ad", "folder"])
def test_what_cannot_be_read_is_named(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("text")
    with pytest.raises(ValueError, match=f"{name} cannot be read as"):
        read_cells(path)


def test_variable_genes_are_chosen_from_counts(cells, rng):
    x = rng.poisson(5.0, (200, 30)).astype(np.float32)
    x[:100, :4] *= 8
    wide = datasets.blobs(200, 30, n_clusters=2, kind="count")
    wide.X = x
    found = most_variable(wide, 4, None, None)
    assert (found.var_names == wide.var_names[:4]).all()
    assert wide.n_vars == 30
    assert "highly_variable" not in wide.var
    assert most_variable(wide, None, None, None) is most_variable(wide, 30, None, None) is wide
    wide.X = np.log1p(x)
    with pytest.raises(ValueError, match="not counts"):
        most_variable(wide, 4, None, None)
    with pytest.raises(KeyError, match="no column 'donor'"):
        most_variable(cells, 4, None, "donor")
    with pytest.raises(ValueError, match="--n-top-genes=0"):
        most_variable(cells, 0, None, None)
    cells.obs["condition"] = cells.obs["condition"].astype(object).where(np.arange(40) > 0)
    with pytest.raises(ValueError, match="1 cells have no 'condition'"):
        most_variable(cells, 4, None, "condition")
    cells.var_names = ["gene", *cells.var_names[:10], "gene"]
    with pytest.raises(ValueError, match=r"occur twice: \['gene'\]"):
        most_variable(cells, 4, None, None)


def test_genes_without_counts_are_not_variable(cells):
    cells.X = cells.X.toarray()
    cells.X[:, [2, 5]] = 0
    for n in (4, 11):
        found = most_variable(cells, n, None, None)
        assert not {cells.var_names[2], cells.var_names[5]} & set(found.var_names)
        assert found.n_vars == min(n, 10)


def test_results_go_to_all_genes(cells):
    some = cells[:, 3:8].copy()
    some.obs["mixvi"] = "0"
    some.obsm["X_mixvi"] = np.ones((40, 2))
    some.varm["PCs_mixvi"] = np.arange(10.0).reshape(5, 2)
    some.uns["mixvi"] = {"model": "AE"}
    some.obs["other"] = 1
    cells.obs["mixvi_entropy"], cells.obs["mixvi_confidence"] = 0.0, 1.0  # the first is of an earlier run
    cells.uns["mixvi"] = {"model": "GMVAE", "version": "1", "settings": {}, "keys": ["obs/mixvi_entropy"]}
    carry_results(some, cells, "mixvi")
    assert (cells.obs["mixvi"] == "0").all()
    assert "mixvi_entropy" not in cells.obs
    assert "mixvi_confidence" in cells.obs
    assert "other" not in cells.obs
    np.testing.assert_array_equal(cells.varm["PCs_mixvi"][3:8], some.varm["PCs_mixvi"])
    assert np.isnan(cells.varm["PCs_mixvi"][[0, 1, 2, 8]]).all()
    assert cells.uns["mixvi"] == {"model": "AE"}


def test_files_are_checked_before_anything_is_read(cells, tmp_path):
    source, out = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    cells.write_h5ad(source)
    new, folder = tmp_path / "new.h5ad", tmp_path / "model"
    check_files([source], [out, tmp_path / "report.html"], [folder], False)
    out.write_text("precious")
    folder.mkdir()
    check_files([source, folder], [out], [], True)
    for inputs, outputs, folders, force, message in (
        ([source], [out], [], False, "exists already"),
        ([source], [new, folder], [], True, "exists already"),  # a folder is not overwritten
        ([source], [new], [folder], True, "another name for the folder"),
        ([tmp_path / "nothing"], [new], [], False, "does not exist"),
        ([source], [source], [], True, "what the command reads"),
        ([source], [new, source], [], True, "what the command reads"),
        ([source, folder], [folder / "model.pt"], [], True, "what the command reads"),
        ([source], [out, out], [], True, "written twice"),
        ([source], [new], [new], True, "written twice"),
        ([source], [tmp_path / "nowhere" / "new.h5ad"], [], True, "is not a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            check_files(inputs, outputs, folders, force)


def test_a_folder_is_not_in_the_place_of_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    out = tmp_path / "out.h5ad"
    for folder in (None, tmp_path, tmp_path / "new" / "folder"):
        check_folder(folder, "--figures", [out])
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ValueError, match="file is a file; --figures must name a folder, new or existing"):
            check_folder(path, "--figures", [out])
    for path in (out, out / "folder"):
        with pytest.raises(ValueError, match="out.h5ad is another result of the command; --figures must"):
            check_folder(path, "--figures", [out])
