"""The curves of docs/exactness.md: what linear models do, beside what linear algebra says they must.

    uv run python benchmarks/exactness.py

Writes docs/_static/exactness.png and benchmarks/results/exactness.csv.
"""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from mixvi.module import AEModule, Cells, CVAEModule, Layout, VAEModule
from mixvi.module.likelihoods import Normal
from mixvi.module.nets import Hidden
from mixvi.train import fit_full_batch

ROOT = Path(__file__).parents[1]
N, G, D = 400, 12, 4
EIGENVALUES = np.array([6.0, 4.0, 2.5, 1.6, *(0.9 * 0.93 ** np.arange(G - D))])
LINEAR = Hidden(n_layers=0)
ZERO = torch.distributions.Normal(0.0, 1.0)


def spectral_data():
    """Cells whose covariance has these eigenvalues."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, G))
    left, _ = np.linalg.qr(x - x.mean(0))
    axes, _ = np.linalg.qr(rng.standard_normal((G, G)))
    return torch.as_tensor(left * np.sqrt(EIGENVALUES * N) @ axes.T)


def as_cells(x, c=None):
    return Cells(x=x, seen=x, library=x[:, :1], c=x[:, :0] if c is None else c, y=x[:, :0], stored=x[:, :0])


def fitted(module, cells, **settings):
    torch.manual_seed(0)
    module = module.double()
    fit_full_batch(module, cells, tolerance=1e-14, **settings)
    return module


def error(module, cells):
    """Mean squared norm of what is left of a cell."""
    with torch.no_grad():
        return (cells.x - module.decode(module.encode(cells).loc, cells).mean).square().sum(-1).mean().item()


def sweep(cells):
    """KL of each latent dimension and reconstruction error by fixed sigma^2; the same KL by beta at sigma^2 = 1."""
    rows = []
    for s2 in np.geomspace(0.02, 8, 15):
        module = fitted(VAEModule(Layout(G), partial(Normal, sigma=np.sqrt(s2)), D, LINEAR), cells)
        with torch.no_grad():
            kl = torch.distributions.kl_divergence(module.encode(cells), ZERO).mean(0).sort(descending=True).values
        rows.append({"sigma2": s2, "error": error(module, cells), **{f"kl_{j}": v.item() for j, v in enumerate(kl)}})
    return pd.DataFrame(rows)


def price_of_a_condition(x):
    """Bound of a CVAE, less its best, when z of the second condition is moved by t and the decoder makes up for it."""
    c = torch.nn.functional.one_hot(torch.arange(N) % 2, 2).double()
    cells, bounds = as_cells(x + c[:, 1:] * 3.0, c), {}
    shifts = np.linspace(0, 2, 9)
    for name, learned in (("N(0, I)", False), ("learned p(z | c)", True)):
        module = fitted(CVAEModule(Layout(G, batch_levels=2), Normal, D, LINEAR, learned), cells)
        bounds[name] = [moved_bound(module, cells, step) for step in np.diff(shifts, prepend=0.0)]
    return pd.DataFrame({name: np.array(values) - values[0] for name, values in bounds.items()}, shifts)


@torch.no_grad()
def moved_bound(module, cells, step):
    """Move z_1 of the second condition by a step in encoder, decoder and, if it can learn, prior; then the bound."""
    decoder = module.likelihood.loc.weight
    module.encoder.loc.weight[0, G + 1] += step
    decoder[:, D + 1] -= step * decoder[:, 0]
    if hasattr(module.prior, "loc"):
        module.prior.loc.weight[0, 1] += step
    log_px, terms = module.bound(cells)
    return (log_px - terms.annealed["kl_z"]).mean().item()


def draw(table, ae_error, prices):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    s2 = np.geomspace(0.02, 8, 200)
    for j in range(D):
        theory = 0.5 * np.log(np.maximum(EIGENVALUES[j] / s2, 1))
        left.plot(s2, theory, color=f"C{j}", lw=1)
        left.plot(table["sigma2"], table[f"kl_{j}"], "o", color=f"C{j}", ms=4, label=f"variance {EIGENVALUES[j]:g}")
    left.set(xscale="log", xlabel=r"$\sigma^2$ (or $\beta\sigma^2$)", ylabel="KL of a dimension (nats)")
    left.set_title(r"off where the variance is below $\sigma^2$")
    left.legend(fontsize=8)
    theory = EIGENVALUES[D:].sum() + sum(
        np.where(EIGENVALUES[j] > s2, s2**2 / EIGENVALUES[j], EIGENVALUES[j]) for j in range(D)
    )
    middle.plot(s2, theory, color="C0", lw=1)
    middle.plot(table["sigma2"], table["error"], "o", color="C0", ms=4, label="VAE")
    middle.axhline(ae_error, color="k", ls="--", lw=1, label="AE")
    middle.set(xscale="log", xlabel=r"$\sigma^2$", ylabel="squared error of a cell", title="a VAE tends to the AE")
    middle.legend(fontsize=8)
    right.plot(prices.index, -(prices.index.to_numpy() ** 2) / 4, color="C0", lw=1)  # half the cells pay t^2 / 2
    right.plot(prices.index, 0 * prices.index, color="C1", lw=1)
    for i, name in enumerate(prices):
        right.plot(prices.index, prices[name], "o", color=f"C{i}", ms=4, label=name)
    right.set(xlabel="distance of the conditions in z", ylabel="change of the bound (nats a cell)")
    right.set_title("CVAE: what it costs to keep c in z")
    right.legend(fontsize=8)
    figure.savefig(ROOT / "docs/_static/exactness.png", dpi=110)


def main():
    x = spectral_data()
    cells = as_cells(x)
    table = sweep(cells)
    ae = fitted(AEModule(Layout(G), partial(Normal, sigma=1.0), D, LINEAR), cells)
    prices = price_of_a_condition(x)
    table.round(6).to_csv(ROOT / "benchmarks/results/exactness.csv", index=False)
    print(table.round(4).to_string(), "\nAE:", round(error(ae, cells), 6), "\n", prices.round(6))
    draw(table, error(ae, cells), prices)


if __name__ == "__main__":
    main()
