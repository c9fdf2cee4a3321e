"""Log evidence of binarised MNIST: a VAE (k = 1) and an IWAE (k = 50), as in Burda 2016, table 1.

    MIXVI_DATA_DIR=... uv run --group benchmark python benchmarks/evidence.py --k 1 --minutes 60

The paper's net: one stochastic layer of 50, two hidden layers of 200 tanh units; images are binarised at each visit.
The paper's optimizer is Adam over 3,280 epochs with a falling rate. Here it is SOAP (Vyas 2024: Adam along the axes
that a layer's gradients vary in), which needs less than half the epochs; its rate falls along half a cosine over
--epochs, so that a machine can say how long it has. The script stops when the time is over and goes on from its
checkpoint (benchmarks/results/evidence_k1.pt, not in git) when called again. --start takes the first weights of another
run from its checkpoint, --rate another first learning rate. The curve goes to benchmarks/results/evidence_k1.csv:
-log p of test images by the importance-weighted bound, on --curve-images with --curve-samples on the way, on all 10,000
with --test-samples at the end.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_optimizer import SOAP
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import linear, softplus

import mixvi
from mixvi.module import Cells, Layout, VAEModule
from mixvi.module._elbo import log_mean_exp
from mixvi.module.likelihoods import Bernoulli
from mixvi.module.nets import Hidden

KEPT = 5
RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Tanh(nn.Sequential):
    """Hidden layers as in the paper, in place of a `mixvi.module.nets.Layer`."""

    def __init__(self, n_in, n_hidden=200):
        super().__init__(nn.Linear(n_in, n_hidden), nn.Tanh(), nn.Linear(n_hidden, n_hidden), nn.Tanh())

    def forward(self, x, cont):
        """There are no conditions."""
        return super().forward(x)


def build(grey):
    """A VAE that starts from the mean image."""
    module = VAEModule(Layout(grey.shape[1]), Bernoulli, 50, Hidden(200, 2, 0.0))
    for trunk, n_in in ((module.encoder.trunk, grey.shape[1]), (module.likelihood.trunk, 50)):
        trunk.layers = nn.ModuleList([Tanh(n_in)])
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    module.likelihood.logits.bias.data = grey.mean(0).clamp(1e-3, 1 - 1e-3).logit()
    module.register_buffer("busy", (grey.mean(0) > 0.003).nonzero().squeeze(1), persistent=False)
    return module.to(DEVICE)


def as_cells(grey, generator=None):
    """Images, binarised by a throw for each pixel."""
    x = (torch.rand(grey.shape, generator=generator, device=grey.device) < grey).float()
    return Cells(x=x, seen=x, library=x[:, :1], c=x[:, :0], y=x[:, :0], stored=x[:, :0])


@torch.no_grad()
def rough_log_weights(module, qz, noise, cells):
    """Log p(x, z) - log q(z | x) (k, n) but for a constant of the image: good enough to throw by.

    Its matrix products are in bfloat16, and pixels that are on in fewer images than 3 of a thousand count where on.
    """
    head, found = module.likelihood.head, []
    weight, bias, on = head.weight[module.busy], head.bias[module.busy], cells.x @ head.weight
    for some in noise.split(4):  # stays in the cache
        z = qz.loc + qz.scale * some
        with torch.autocast(DEVICE, torch.bfloat16):
            h = module.likelihood.trunk(z, cells.c)
            logits = linear(h, weight, bias)
        log_px = (h.float() * on).sum(-1) - softplus(logits.float()).sum(-1)
        found.append(log_px + (some.square() - z.square()).sum(-1) / 2)
    return torch.cat(found)


def loss(module, cells, k):
    """Negative bound of a minibatch: the ELBO for one sample, its KL in closed form.

    For more, a loss with the gradient of L_k (to 1 or 2 %): the decoder's is sum_i w_i grad log w_i over normalised
    weights w, the encoder's goes by z alone and with w_i^2 (doubly reparameterised, Tucker 2019). Of more than `KEPT`
    samples only so many are followed back: thrown by rough weights with one common remainder, and weighed by what these
    were wrong.
    """
    if k == 1:
        log_px, terms = module.bound(cells)
        return (terms.annealed["kl_z"] - log_px).mean()
    qz = module.encode(cells)
    noise, rough = torch.randn(k, *qz.loc.shape, device=qz.loc.device), 0.0
    if k > KEPT:
        rough = rough_log_weights(module, qz, noise, cells)  # (k, n)
        weights = rough.softmax(0)
        steps = (torch.rand(rough.shape[1], 1, device=rough.device) + torch.arange(KEPT, device=rough.device)) / KEPT
        drawn = torch.searchsorted(weights.cumsum(0).T.contiguous(), steps).clamp(max=k - 1).T  # (KEPT, n)
        noise = noise.gather(0, drawn.unsqueeze(-1).expand(-1, -1, noise.shape[-1]))
        rough, weights = rough.gather(0, drawn), weights.gather(0, drawn)
    z = qz.loc + qz.scale * noise
    fixed = Normal(qz.loc.detach(), qz.scale.detach())
    with torch.autocast(DEVICE, torch.bfloat16):
        log_px = module.likelihood.log_prob(z, cells)
    exact = log_px + module.prior.log_ratio(fixed, z, cells)
    wrong = (exact.detach() - rough).softmax(0)
    weights = weights if k > KEPT else wrong
    z.register_hook(lambda gradient: gradient * weights.unsqueeze(-1))
    return -(wrong * exact).sum(0).mean()


@torch.no_grad()
def test_score(module, grey, n_samples):
    """-log p (nats an image) and its standard error over images; the same throw of pixels each time."""
    module.eval()
    cells = as_cells(grey.cpu(), torch.Generator().manual_seed(0))
    found = []
    for i in range(len(grey)):
        one = Cells(*(value[i : i + 1].to(DEVICE) for value in cells))
        found.append(log_mean_exp(module.log_weights(one, n_samples)).item())
    module.train()
    return -np.mean(found), np.std(found) / np.sqrt(len(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=1, help="samples in training")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--start", type=Path, help="checkpoint of another run")
    parser.add_argument("--curve-images", type=int, default=500)
    parser.add_argument("--curve-samples", type=int, default=500)
    parser.add_argument("--test-samples", type=int, default=5_000)
    parser.add_argument("--every", type=int, default=50, help="epochs between looks at the test set")
    args = parser.parse_args()
    images = mixvi.datasets.mnist()
    is_train = (images.obs["split"] == "train").to_numpy()
    x = torch.as_tensor(np.asarray(images.X), dtype=torch.float32)
    train, test = x[is_train].to(DEVICE), x[~is_train]

    torch.manual_seed(0)
    module = build(train)
    optimizer = SOAP(
        module.parameters(), betas=(0.95, 0.95), weight_decay=0.0, precondition_frequency=10, max_precondition_dim=500
    )
    path, rows, epoch, seconds = RESULTS / f"evidence_k{args.k}.pt", [], 0, 0.0
    if args.start and not path.exists():
        module.load_state_dict(torch.load(args.start, weights_only=False)["module"])
    if path.exists():
        state = torch.load(path, weights_only=False)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        rows, epoch, seconds = state["rows"], state["epoch"], state["seconds"]

    def look(n_images, n_samples):
        score, error = test_score(module, test[:n_images], n_samples)
        rows.append(
            {"epoch": epoch, "of": args.epochs, "-log p": round(score, 3), "standard error": round(error, 3),
             "images": n_images, "samples": n_samples, "training seconds": round(seconds),
             "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"}
        )  # fmt: skip
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(RESULTS / f"evidence_k{args.k}.csv", index=False)

    end = time.monotonic() + 60 * args.minutes
    while epoch < args.epochs and time.monotonic() < end:
        start = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * (1 + math.cos(math.pi * epoch / args.epochs)) / 2
        for batch in torch.randperm(len(train), device=DEVICE).split(args.batch_size):
            optimizer.zero_grad()
            loss(module, as_cells(train[batch]), args.k).backward()
            optimizer.step()
        epoch += 1
        seconds += time.monotonic() - start
        if epoch % args.every == 0 or (time.monotonic() > end and epoch < args.epochs):
            look(args.curve_images, args.curve_samples)
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"rows": rows, "epoch": epoch, "seconds": seconds}, path)
    if epoch == args.epochs:
        look(len(test), args.test_samples)


if __name__ == "__main__":
    main()
