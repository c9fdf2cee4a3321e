"""What all models share: every likelihood and matrix type, and an AnnData that stays as it was."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
import torch
from scipy.sparse import csc_matrix, csr_matrix, issparse

import mixvi
from mixvi import datasets
from mixvi._warnings import MixviWarning
from mixvi.data import check_dtype
from mixvi.model import _arguments
from tests.model.helpers import MODELS, QUICK, build, fitted

LIKELIHOODS = ["nb", "zinb", "poisson", "bernoulli", "normal"]


def as_form(adata, form):
    """The same values as another kind of matrix: in a layer, or as rows of a larger AnnData."""
    if form == "layer":
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.full(adata.shape, -1.0, dtype=np.float32)
        return adata, {"layer": "counts"}
    if form == "view":
        twice = ad.concat([adata, adata], index_unique="-")
        return twice[: adata.n_obs], {}
    adata.X = {"dense": np.asarray, "fortran": np.asfortranarray, "csr": csr_matrix, "csc": csc_matrix}[form](adata.X)
    return adata, {}


@pytest.mark.parametrize("form", ["dense", "fortran", "csr", "csc", "layer", "view"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", MODELS)
def test_trains_and_reloads(name, likelihood, form, counts, tmp_path):
    if likelihood == "bernoulli":
        counts.X = counts.X / counts.X.max()
    adata, setup = as_form(counts, form)
    model = fitted(name, adata, setup, {"max_epochs": 2}, likelihood=likelihood)
    z = model.get_latent_representation()
    assert z.shape == (120, 3)
    assert np.isfinite(z).all()
    assert np.isfinite(model.get_elbo())
    model.save(tmp_path / "model")
    again = MODELS[name].load(tmp_path / "model", adata=adata, accelerator="cpu")
    np.testing.assert_array_equal(again.get_latent_representation(), z)
    np.testing.assert_array_equal(again.get_reconstruction(None, [0, 1]), model.get_reconstruction(None, [0, 1]))
    assert again.likelihood_ == likelihood
    if name == "GMVAE":
        pd.testing.assert_frame_equal(again.predict(soft=True), model.predict(soft=True))


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_a_matrix_gives_the_same_latents(name, form, counts):
    expected = fitted(name, counts.copy()).get_latent_representation()
    adata, setup = as_form(counts, form)
    np.testing.assert_allclose(fitted(name, adata, setup).get_latent_representation(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_bits(name, counts):
    first, again, other = (fitted(name, counts.copy(), seed=s).get_latent_representation() for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def snapshot(adata):
    x = adata.X.copy() if issparse(adata.X) else np.array(adata.X)
    return x, adata.obs.copy(), adata.var.copy(), set(adata.obsm), set(adata.uns), set(adata.layers)


def without_scvi(keys):
    return [key for key in keys if not str(key).startswith("_scvi")]


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_scvis_own_keys_is_written(name, form, counts):
    adata, setup = as_form(counts, form)
    adata.obs["age"] = np.linspace(0, 1, adata.n_obs)
    if name in ("CVAE", "GMVAE"):
        setup |= {"batch_key": "condition", "continuous_covariate_keys": ["age"]}
    x, obs, var, obsm, uns, layers = snapshot(adata)
    type_before = type(adata.X)
    model = fitted(name, adata, setup)
    model.get_reconstruction()
    model.get_elbo()
    model.sample(3)
    assert type(adata.X) is type_before
    difference = x != adata.X
    assert (difference.nnz if issparse(difference) else difference.sum()) == 0
    pd.testing.assert_frame_equal(adata.obs[without_scvi(adata.obs)], obs)
    pd.testing.assert_frame_equal(adata.var, var)
    assert set(without_scvi(adata.obsm)) == obsm
    assert set(without_scvi(adata.uns)) == uns
    assert set(adata.layers) == layers


@pytest.mark.parametrize("name", MODELS)
def test_new_cells_are_read_and_not_written_to(name, counts):
    model = fitted(name, counts)
    new = datasets.blobs(50, 30, n_clusters=3, n_conditions=2, kind="count", seed=1)
    _, obs, _, obsm, uns, _ = snapshot(new)
    whole = model.get_latent_representation(new)
    np.testing.assert_allclose(model.get_latent_representation(new[20:30]), whole[20:30], rtol=1e-5, atol=1e-6)
    assert model.get_reconstruction(new).shape == (50, 30)
    assert model.get_elbo(new, return_mean=False).shape == (50,)
    pd.testing.assert_frame_equal(new.obs, obs)
    assert (set(new.obsm), set(new.uns)) == (obsm, uns)
    np.testing.assert_allclose(
        model.get_latent_representation(counts[:5].copy()), model.get_latent_representation()[:5], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_backed_file_trains(counts, tmp_path, sparse):
    if sparse:
        counts.X = csr_matrix(counts.X)
    expected = fitted("VAE", counts.copy()).get_latent_representation()
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = fitted("VAE", backed)
    assert model.get_latent_representation(indices=[7, 2]).shape == (2, 3)
    assert model.get_latent_representation().shape == expected.shape


def test_new_cells_must_have_the_genes_and_conditions_of_the_model(counts):
    model = fitted("CVAE", counts)
    with pytest.raises(ValueError, match="another order.*get_var_names"):
        model.get_latent_representation(counts[:, ::-1].copy())
    other = counts.copy()
    other.obs["condition"] = "condition 9"
    with pytest.raises(ValueError, match=r"\['condition 9'\].*not trained on"):
        model.get_latent_representation(other)
    negative = counts.copy()
    negative.X = negative.X - 1
    with pytest.raises(ValueError, match="negative entries"):
        model.get_latent_representation(negative)


def test_loading_refuses_genes_in_another_order(counts, tmp_path):
    model = fitted("VAE", counts)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="another order.*get_var_names"):
        mixvi.VAE.load(tmp_path / "model", adata=counts[:, ::-1].copy(), accelerator="cpu")
    again = mixvi.VAE.load(tmp_path / "model", adata=counts[:50].copy(), accelerator="cpu")
    z = model.get_latent_representation()[:50]
    np.testing.assert_allclose(again.get_latent_representation(), z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("key", "value"), [("n_latent", 0), ("n_hidden", 2.5), ("n_layers", -1), ("dropout_rate", 1.0)]
)
def test_sizes_that_make_no_sense(name, key, value, counts):
    with pytest.raises(ValueError, match=f"{key}={value}; it must be"):
        build(name, counts, **{key: value})


@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, "10"])
def test_training_takes_an_epoch_at_least(max_epochs, counts):
    with pytest.raises(ValueError, match=f"max_epochs={max_epochs!r}; it must be a whole number of at least 1"):
        build("VAE", counts).train(max_epochs)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"batch_size": "64"}, "batch_size='64'; it must be a whole number"), ({"batch_size": 0}, "batch_size=0; it must"),
    ({"plan_kwargs": {"n_epoch_pretrain": 1}}, "plan_kwargs got 'n_epoch_pretrain', .*did you mean n_epochs_pretrain"),
    ({"plan_config": {"zzz": 1}}, "plan_kwargs got 'zzz', which it does not know; there are .*'n_epochs_pretrain'"),
    ({"plan_kwargs": {"batch_size": 64}}, r"plan_kwargs got \['batch_size'\], which .* pass train\(batch_size=...\)"),
    ({"weight_decai": 1.0}, r"train\(\) got 'weight_decai', .*did you mean plan_kwargs={'weight_decay': ...}"),
    ({"data_pth": "stream"}, "did you mean data_path"), ({"trainer_config": {"zzz": 4}}, r"train\(\) got 'zzz'"),
    ({"plan_kwargs": {"guidance": 1.0}}, "plan_kwargs got 'guidance', which it does not know"),  # GMVAE(guidance=...)
    ({"plan_kwargs": {"weight_decay": np.nan}}, "plan_kwargs got weight_decay=nan; it must be a number of at least 0"),
    ({"plan_kwargs": {"lr": "1e-3"}}, "plan_kwargs got lr='1e-3'; it must be a number of at least 0"),
    ({"plan_kwargs": {"max_kl_weight": -1}}, "plan_kwargs got max_kl_weight=-1; it must be a number"),
    ({"plan_kwargs": {"n_epochs_kl_warmup": 2.5}}, "plan_kwargs got n_epochs_kl_warmup=2.5; it must be a whole"),
    ({"plan_kwargs": {"n_epochs_pretrain": "3"}}, "plan_kwargs got n_epochs_pretrain='3'; it must be a whole number"),
    ({"plan_kwargs": {"compile": "yes"}}, "plan_kwargs got compile='yes'; it must be True or False"),
    ({"plan_kwargs": {"optimizer": "SGD"}}, r"plan_kwargs got optimizer='SGD'; it must be one of \['Adam', "),
    ({"max_epoch": 3}, r"train\(\) got 'max_epoch', which it does not know; did you mean .*max_epochs"),
    ({"n_epochs_kl_warmup": 2}, r"\['n_epochs_kl_warmup'\] are settings of the plan"),
    ({"lr": 1e-3}, r"\['lr'\] are settings of the plan: pass train\(plan_kwargs={...}\)"),
])  # fmt: skip
def test_training_says_what_it_does_not_take(wrong, said, counts):
    model = build("VAE", counts)
    with pytest.raises(ValueError, match=said):
        model.train(1, **wrong)
    assert not model.is_trained_


def test_every_setting_of_the_plan_may_be_given_its_default(counts):
    settings = {name: parameter.default for name, parameter in _arguments.PLAN.items()}
    build("VAE", counts).train(1, enable_progress_bar=False, plan_kwargs=settings)
    _arguments.check_plan({"n_epochs_pretrain": -1, "n_epochs_kl_warmup": None, "lr": np.float32(1e-3)})
    _arguments.check_plan({"n_steps_kl_warmup": 1e3, "compile": np.True_, "max_kl_weight": torch.tensor(0.5)})
    _arguments.check_plan({"on_step": None})


@pytest.mark.parametrize("name", MODELS)
def test_a_handful_of_cells_trains_without_validation(name, counts):
    model = fitted(name, counts[:5].copy(), n_clusters=2) if name == "GMVAE" else fitted(name, counts[:5].copy())
    assert model.get_latent_representation().shape == (5, 3)


def test_a_category_that_no_cell_has_is_said(counts):
    setup = {"labels_key": "cluster", "unlabeled_category": "Unknwon"}
    with pytest.warns(MixviWarning, match="unlabeled_category='Unknwon' in .obs"):
        build("GMVAE", counts, setup)


@pytest.mark.parametrize("misspelt", ["Unknown", "unknwon"])
def test_a_misspelt_category_is_refused(counts, misspelt):
    counts.obs["label"] = np.where(np.arange(counts.n_obs) % 2, "unknown", "B")
    with pytest.raises(ValueError, match=f"unlabeled_category='{misspelt}' in .obs.*did you mean 'unknown'"):
        mixvi.GMVAE.setup_anndata(counts, labels_key="label", unlabeled_category=misspelt)


def test_labels_are_names_and_some_cell_has_one(counts, rng):
    counts.obs["score"], counts.obs["whole"] = rng.normal(size=120), np.arange(120) % 3 + 0.0
    with pytest.raises(ValueError, match=r".obs\['score'\] holds fractions such as .*; names of kinds of cells"):
        build("GMVAE", counts, {"labels_key": "score"})
    for name in ("nothing", "unlabeled"):
        counts.obs["label"] = name
        with pytest.raises(ValueError, match=f"gives no cell a label: all are '{name}'"):
            build("GMVAE", counts, {"labels_key": "label", "unlabeled_category": name if name == "nothing" else None})
    assert build("GMVAE", counts, {"labels_key": "whole"}, n_clusters=None).cluster_names == ["0.0", "1.0", "2.0"]


def test_a_printed_model_says_what_it_is(counts, capsys):
    assert repr(build("VAE", counts)) == ""  # scvi-tools prints instead
    assert "VAE of 120 cells x 30 genes: n_latent 3, likelihood nb" in capsys.readouterr().out
    model = build("GMVAE", counts, n_clusters=2)
    assert "n_latent 3, n_clusters 2, likelihood nb\n" in model.summary_string
    model.train(**QUICK)
    temperature = model.module.prior.temperature.item()
    assert f"n_clusters 2, likelihood nb, temperature {round(temperature, 3)}\n" in model.summary_string
    with pytest.raises(TypeError, match="GMVAE got a DataFrame for cells; pass an AnnData"):
        model.predict(counts.to_df())
    model.annotate()
    assert counts.uns["mixvi"]["setup"] == {}
    assert counts.uns["mixvi"]["n_clusters"] == 2
    assert counts.uns["mixvi"]["temperature"] == pytest.approx(temperature, abs=1e-3)


@pytest.mark.parametrize("name", ["Unknown", "?", "unlabeled", "T cell"])
def test_a_class_that_sounds_like_none_is_said(name, counts, warned, recwarn):
    counts.obs["label"] = np.where(np.arange(120) < 20, "B cell", name)
    build("GMVAE", counts, {"labels_key": "label"})
    assert (f"pass unlabeled_category={name!r}" in warned()) == (name in ("Unknown", "?"))
    recwarn.clear()
    build("GMVAE", counts, {"labels_key": "label", "unlabeled_category": name})
    assert "counts as a class" not in warned()


@pytest.mark.parametrize("n_clusters", [None, 4])
def test_classes_that_leave_no_room_for_others_are_said(n_clusters, counts, caplog):
    counts.obs["label"] = np.where(np.arange(120) < 20, "B cell", "unknown")
    setup = {"labels_key": "label", "unlabeled_category": "unknown"}
    build("GMVAE", counts, setup, n_clusters=n_clusters)
    assert ("took the classes of .obs['label'] for all clusters there are, 1;" in caplog.text) == (n_clusters is None)


def test_new_cells_without_the_layer_are_told_what_to_do(counts):
    counts.layers["counts"] = counts.X.copy()
    model = fitted("VAE", counts, {"layer": "counts"})
    new = counts[:7].copy()
    del new.layers["counts"]
    with pytest.raises(KeyError, match=r"no layer 'counts'.*adata.layers\['counts'\] = adata.X"):
        model.get_latent_representation(new)
    new.layers["counts"] = new.X
    assert model.get_latent_representation(new).shape == (7, 3)


def test_counts_of_which_some_are_negative_are_said(counts, warned, recwarn):
    counts.X[3, 4] = -1
    build("VAE", counts)
    assert "adata.X holds whole numbers only; if they are counts, mend those that are negative: 1 (" in warned()
    recwarn.clear()
    build("VAE", ad.AnnData(counts.X / 2, obs=counts.obs))
    assert "mend" not in warned()


@pytest.mark.parametrize("change", [sc.pp.log1p, sc.pp.scale])
@pytest.mark.parametrize("where", ["raw", "counts", "umi"])
def test_raw_counts_beside_real_values_are_pointed_to(counts, warned, recwarn, change, where):
    if where == "raw":
        counts.raw = counts.copy()
    else:
        counts.layers[where] = counts.X.copy()
    change(counts)
    counts.layers["change"] = counts.X.copy()
    build("VAE", counts)
    name = "adata.raw.X" if where == "raw" else f"adata.layers['{where}']"
    assert f"adata.X has no counts, but {name} seems to have raw counts. To model them, call setup_a" in warned()
    assert "'change'" not in warned()
    recwarn.clear()
    if where != "raw":
        build("VAE", counts, {"layer": where})
        assert "seems to have" not in warned()


@pytest.mark.parametrize("kind", [np.float16, ">f4", ">i4", object, str, complex])
def test_values_of_other_kinds_are_refused_with_the_cure(counts, kind):
    counts.X = np.asarray(counts.X).astype(kind)
    with pytest.raises(ValueError, match=r"adata.X has dtype '.*'; models read .*Convert it: adata.X = adata.X.astype"):
        mixvi.VAE.setup_anndata(counts)


def test_values_that_are_missing_or_masked_are_refused(counts):
    with pytest.raises(ValueError, match=r"adata.X is a masked array; fill it, for example adata.X = adata.X.filled"):
        check_dtype(np.ma.masked_array(counts.X, counts.X == 0), "adata.X")
    del counts.X
    with pytest.raises(ValueError, match="adata.X is None; name the layer"):
        mixvi.VAE.setup_anndata(counts)


@pytest.mark.parametrize("setup", [{"batch_key": "b"}, {"categorical_covariate_keys": ["b"]}, {"labels_key": "b"}])
def test_text_and_numbers_in_a_column_are_refused_with_the_cure(counts, setup):
    counts.obs["b"] = np.array(["x", 1], dtype=object)[np.arange(counts.n_obs) % 2]
    with pytest.raises(ValueError, match=r"obs\['b'\] mixes values of type int and str; make them one kind: .*astype"):
        mixvi.GMVAE.setup_anndata(counts, **setup)


@pytest.mark.parametrize("key", ["batch_key", "categorical_covariate_keys"])
def test_categories_without_cells_are_said(counts, warned, recwarn, key):
    counts.obs["b"] = pd.Categorical(np.array(["x", "y"])[np.arange(counts.n_obs) % 2], ["w", "x", "y"])
    mixvi.CVAE.setup_anndata(counts, **{key: "b" if key == "batch_key" else ["b"]})
    assert ".obs['b'] has categories without cells, ['w']" in warned()
    recwarn.clear()
    counts.obs["b"] = counts.obs["b"].cat.remove_unused_categories()
    model = build("CVAE", counts, {key: "b" if key == "batch_key" else ["b"]})
    model.train(**QUICK)
    model.get_latent_representation(counts[counts.obs["b"] == "x"].copy())  # new cells may lack a batch
    assert "categories without cells" not in warned()


def test_names_of_columns_are_texts_and_unique(counts):
    counts.obs[0] = "x"
    with pytest.raises(ValueError, match="0 is not the name of a column; pass a text"):
        mixvi.GMVAE.setup_anndata(counts, batch_key=0)
    counts.obs.columns = ["b", "b", *counts.obs.columns[2:]]
    with pytest.raises(ValueError, match=r".obs has 2 columns 'b'; rename or drop all but one"):
        mixvi.GMVAE.setup_anndata(counts, batch_key="b")


def test_loading_what_is_not_there(counts, tmp_path):
    fitted("VAE", counts).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"There is no .*other.model.pt; pass the folder that save\(\) wrote"):
        mixvi.VAE.load(tmp_path / "other", adata=counts)
    with pytest.raises(ValueError, match=r"model holds a VAE, not a GMVAE; load it with mixvi.VAE.load\(\)"):
        mixvi.GMVAE.load(tmp_path / "model", adata=counts)


def test_loading_without_data(counts, tmp_path):
    model = fitted("GMVAE", counts, {"batch_key": "condition"})
    model.save(tmp_path / "model")
    again = mixvi.GMVAE.load(tmp_path / "model", adata=False, accelerator="cpu")
    with pytest.raises(ValueError, match="loaded without data; pass adata="):
        again.get_latent_representation()
    np.testing.assert_allclose(
        again.get_latent_representation(counts), model.get_latent_representation(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(again.predict(counts), model.predict())


def test_auto_says_in_one_line_what_it_took(counts, caplog):
    build("VAE", counts)
    lines = [record.message for record in caplog.records if record.name.startswith("mixvi")]
    assert lines == ["VAE took likelihood='nb', because adata.X holds raw counts (non-negative whole numbers)."]


@pytest.mark.parametrize("name", MODELS)
def test_a_likelihood_that_cannot_fit_the_data(name, counts):
    counts.layers["scaled"] = counts.X - counts.X.mean(0)
    with pytest.raises(ValueError, match=r"layers\['scaled'\] has negative entries.*'cell 0'"):
        build(name, counts, {"layer": "scaled"}, likelihood="nb")
    with pytest.raises(ValueError, match="'negbin' is not known.*'nb'"):
        build(name, counts, likelihood="negbin")
    counts.X[3] = 0
    with pytest.raises(ValueError, match="1 cells without any count .*'cell 3'"):
        build(name, counts)
    counts.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN.*'cell 3', gene 'gene 4'"):
        build(name, counts)
    with pytest.raises(ValueError, match="0 genes"):
        build(name, counts[:, :0].copy())


IGNORED = {
    "AE": {"batch_key": "CVAE", "labels_key": "GMVAE", "categorical_covariate_keys": "CVAE"},
    "VAE": {"batch_key": "CVAE", "labels_key": "GMVAE", "continuous_covariate_keys": "CVAE"},
    "CVAE": {"labels_key": "GMVAE"},
}


@pytest.mark.parametrize(("name", "argument", "other"), [(n, a, o) for n, m in IGNORED.items() for a, o in m.items()])
def test_what_a_model_would_ignore_is_an_error_that_names_another(name, argument, other, counts):
    value = ["condition"] if argument.endswith("keys") else "condition"
    with pytest.raises(ValueError, match=f"{name} got {argument}=.*would ignore; use mixvi.{other}"):
        MODELS[name].setup_anndata(counts, **{argument: value})
    assert not [key for key in (*counts.uns, *counts.obs) if key.startswith("_scvi")]  # nothing was registered


def test_setup_names_what_is_missing(counts):
    with pytest.raises(KeyError, match="no layer 'counts'"):
        mixvi.VAE.setup_anndata(counts, layer="counts")
    with pytest.raises(KeyError, match="no column 'batch'.*condition"):
        mixvi.CVAE.setup_anndata(counts, batch_key="batch")
    with pytest.raises(ValueError, match="needs labels_key"):
        mixvi.GMVAE.setup_anndata(counts, unlabeled_category="unknown")


@pytest.mark.parametrize("name", MODELS)
def test_size_factors_and_covariates(name, counts):
    counts.obs["sf"] = counts.X.sum(1) / counts.X.sum(1).mean()
    counts.obs["age"] = np.linspace(-1, 1, counts.n_obs)
    setup = {"size_factor_key": "sf"}
    if name in ("CVAE", "GMVAE"):
        setup |= {"categorical_covariate_keys": ["condition"], "continuous_covariate_keys": ["age"]}
        if name == "GMVAE":
            setup["batch_key"] = "condition"
    model = fitted(name, counts, setup)
    assert np.isfinite(model.get_elbo())
    assert np.isfinite(model.get_elbo(counts[:10].copy()))
    width = 2 + 2 + 1 if name in ("CVAE", "GMVAE") else 0  # batch, the same as a covariate, and age
    assert model.module.layout.n_conditions == width
    sampled = model.sample(4)
    assert set(sampled.obs) == ({"sf", "condition", "age"} if width else {"sf"})
    assert model.get_latent_representation(sampled).shape == (4, 3)


def test_posterior_mean_draws_and_variance(counts):
    model = fitted("VAE", counts)
    mean, variance = model.get_latent_representation(return_dist=True)
    np.testing.assert_array_equal(mean, model.get_latent_representation())
    assert (variance > 0).all()
    drawn = np.stack([model.get_latent_representation(give_mean=False) for _ in range(300)])
    error = np.sqrt(variance / 300)
    assert (np.abs(drawn.mean(0) - mean) < 5.5 * error).all()
    mean, variance = fitted("AE", counts).get_latent_representation(return_dist=True)
    assert (variance == 0).all()


def test_elbo_is_error_plus_kl(counts):
    model = fitted("VAE", counts, train={"plan_kwargs": {"n_epochs_kl_warmup": None}})
    mean, variance = (a.astype(float) for a in model.get_latent_representation(return_dist=True))
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
    scvi.settings.seed = 3
    elbo = model.get_elbo(return_mean=False)
    scvi.settings.seed = 3
    error = model.get_reconstruction_error(return_mean=False)
    np.testing.assert_allclose(elbo, -error - kl, rtol=1e-4)
    assert model.get_elbo() == pytest.approx(elbo.mean(), rel=0.01)


def test_reconstruction_to_disk(counts, tmp_path):
    model, rows = fitted("VAE", counts), [5, 3, 40]
    assert model.get_reconstruction(path=tmp_path / "all.h5ad") is None
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "all.h5ad").X, model.get_reconstruction())
    counts.obs["mine"] = "B"
    model.get_reconstruction(counts.copy(), indices=rows, library_size=1e4, path=tmp_path / "some.zarr")
    some = ad.read_zarr(tmp_path / "some.zarr")
    np.testing.assert_array_equal(some.X, model.get_reconstruction(indices=rows, library_size=1e4))
    assert list(some.obs_names) == list(counts.obs_names[rows])
    assert (some.obs["mine"] == "B").all()
    assert not any(column.startswith("_scvi") for column in some.obs)
    with pytest.raises(ValueError, match="exists"):
        model.get_reconstruction(path=tmp_path / "all.h5ad")


def test_reconstruction_has_the_library_asked_for(counts):
    model = fitted("VAE", counts)
    np.testing.assert_allclose(model.get_reconstruction().sum(1), counts.X.sum(1), rtol=1e-4)
    np.testing.assert_allclose(model.get_reconstruction(library_size=1e4).sum(1), 1e4, rtol=1e-4)
    with pytest.raises(ValueError, match="no meaning under likelihood='normal'"):
        fitted("VAE", counts, likelihood="normal").get_reconstruction(library_size=1e4)


@pytest.mark.parametrize("name", MODELS)
def test_new_cells_look_like_the_old_ones(name, counts):
    model = fitted(name, counts, train={"max_epochs": 300, "plan_kwargs": {"lr": 0.01}})
    new = model.sample(2000, seed=0)
    assert new.shape == (2000, 30)
    assert (new.var_names == counts.var_names).all()
    assert (np.round(new.X) == new.X).all()
    assert (new.X >= 0).all()
    assert new.X.sum(1).mean() == pytest.approx(counts.X.sum(1).mean(), rel=0.05)
    likeness = np.corrcoef(np.log1p(new.X.mean(0)), np.log1p(counts.X.mean(0)))[0, 1]
    assert likeness > (
        0.7 if name == "AE" else 0.95
    )  # an AE draws from one normal, which covers what lies between clusters
    np.testing.assert_array_equal(new.X, model.sample(2000, seed=0).X)
    assert (new.X != model.sample(2000, seed=1).X).any()


def test_every_new_cell_is_a_draw_of_its_own(counts):
    model = fitted("VAE", counts)
    assert len(np.unique(model.sample(500, seed=0).X, axis=0)) > 450
    draws = model.get_latent_representation(indices=[0] * 50, give_mean=False)
    assert len(np.unique(draws, axis=0)) == 50


def test_annotations_of_an_earlier_call_go(counts):
    model = fitted("GMVAE", counts)
    model.annotate()
    model.annotate(clustering="leiden")
    assert "mixvi_confidence" not in counts.obs
    assert "mixvi_probabilities" not in counts.obsm


def test_size_factors_that_would_be_ignored(counts):
    counts.obs["sf"] = 1.0
    with pytest.raises(ValueError, match="size_factor_key would be ignored under likelihood='normal'"):
        build("VAE", counts, {"size_factor_key": "sf"}, likelihood="normal")
    with pytest.raises(ValueError, match="beside size factors"):
        fitted("VAE", counts, {"size_factor_key": "sf"}).get_reconstruction(library_size=1e4)
    with pytest.raises(ValueError, match="is one name; pass a list"):
        mixvi.CVAE.setup_anndata(counts, categorical_covariate_keys="condition")


def test_new_cells_take_their_condition_from_the_rows_given(counts):
    model = fitted("CVAE", counts)
    rows = np.flatnonzero(counts.obs["condition"] == "condition 1")
    assert set(model.sample(20, indices=rows).obs["condition"]) == {"condition 1"}
    for name in ("AE", "VAE", "CVAE"):
        with pytest.raises(ValueError, match="use mixvi.GMVAE"):
            fitted(name, counts).sample(3, component="0")


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE"])
def test_annotate_with_leiden(name, counts):
    model = fitted(name, counts)
    model.annotate()
    assert counts.obsm["X_mixvi"].shape == (120, 3)
    assert "mixvi" not in counts.obs
    model.annotate(clustering="leiden")
    sizes = counts.obs["mixvi"].value_counts(sort=False)
    assert list(sizes.index) == [str(k) for k in range(len(sizes))]
    assert sizes.is_monotonic_decreasing
    assert counts.uns["mixvi"]["model"] == name
    assert counts.uns["mixvi"]["version"] == mixvi.__version__
    assert counts.uns["mixvi"]["likelihood"] == model.likelihood_
    with pytest.raises(ValueError, match="'louvain' is not known"):
        model.annotate(clustering="louvain")


def test_annotate_leaves_what_is_not_its_own(counts):
    model = fitted("GMVAE", counts)
    counts.obs["mine"] = "precious"
    counts.uns["leiden"] = {"params": 1}
    for key in ("mine", "leiden"):
        with pytest.raises(ValueError, match="not from mixvi; nothing was written"):
            model.annotate(key_added=key)
    assert set(counts.obs["mine"]) == {"precious"}
    assert "X_mine" not in counts.obsm
    model.annotate()
    model.annotate()  # its own it may renew


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
def test_annotations_survive_a_file(write, counts, tmp_path):
    model = fitted("GMVAE", counts)
    model.annotate()
    getattr(counts, write)(tmp_path / "cells")
    again = (ad.read_h5ad if write == "write_h5ad" else ad.read_zarr)(tmp_path / "cells")
    assert list(again.obs["mixvi"]) == list(counts.obs["mixvi"])
    np.testing.assert_array_equal(again.obsm["X_mixvi"], counts.obsm["X_mixvi"])
    np.testing.assert_array_equal(again.obsm["mixvi_probabilities"], counts.obsm["mixvi_probabilities"])
    assert again.uns["mixvi"]["model"] == "GMVAE"
    assert again.uns["mixvi"]["settings"]["n_latent"] == 3
    model.annotate(again)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_runs_on_a_gpu(name, counts):
    model = build(name, counts)
    model.train(**(QUICK | {"accelerator": "gpu"}))
    assert model.device.type == "cuda"
    assert np.isfinite(model.get_elbo())
    model.annotate()
