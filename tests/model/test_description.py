"""What a model says of itself."""

import pytest

from tests.model.helpers import QUICK, build


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
