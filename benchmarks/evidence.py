"""Log evidence of binarised MNIST: a VAE (k = 1) and an IWAE (k = 50), as in Burda 2016, table 1.

    MIXVI_DATA_DIR=... uv run python benchmarks/evidence.py --k 1 --minutes 60

One stochastic layer of 50, two hidden layers of 200; images are binarised anew at each visit; Adam, its rate falling as
in the paper: 1e-3 * 10^(-i/7) for 3^i epochs, i = 0 ... 7, 3,280 epochs in all. The script stops when the time is
over and goes on from its checkpoint (benchmarks/results/evidence_k1.pt, not in git) when called again. The curve goes
to benchmarks/results/evidence_k1.csv: -log p of test images, by the importance-weighted bound with --test-samples.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import mixvi
from mixvi.module import Cells, Layout, VAEModule
from mixvi.module._elbo import log_mean_exp
from mixvi.module.likelihoods import Bernoulli
from mixvi.module.nets import Hidden

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STAGES = np.repeat(np.arange(8), 3 ** np.arange(8))  # of each epoch


def as_cells(grey, generator=None):
    """Images, binarised by a throw for each pixel."""
    x = torch.bernoulli(grey, generator=generator)
    return Cells(x=x, seen=x, library=x[:, :1], c=x[:, :0], y=x[:, :0])


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
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--test-samples", type=int, default=5_000)
    parser.add_argument("--every", type=int, default=10, help="epochs between looks at the test set")
    args = parser.parse_args()
    images = mixvi.datasets.mnist()
    is_train = (images.obs["split"] == "train").to_numpy()
    x = torch.as_tensor(np.asarray(images.X), dtype=torch.float32)
    train, test = x[is_train].to(DEVICE), x[~is_train][: args.test_images]

    torch.manual_seed(0)
    module = VAEModule(Layout(x.shape[1]), Bernoulli, 50, Hidden(200, 2, 0.0)).to(DEVICE)
    optimizer = torch.optim.Adam(module.parameters(), eps=1e-4)
    path, rows, epoch = RESULTS / f"evidence_k{args.k}.pt", [], 0
    if path.exists():
        state = torch.load(path, weights_only=False)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        rows, epoch = state["rows"], state["epoch"]
    end = time.monotonic() + 60 * args.minutes
    while epoch < len(STAGES) and time.monotonic() < end:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 10 ** (-STAGES[epoch] / 7)
        for batch in torch.randperm(len(train), device=DEVICE).split(args.batch_size):
            optimizer.zero_grad()
            (-log_mean_exp(module.log_weights(as_cells(train[batch]), args.k)).mean()).backward()
            optimizer.step()
        epoch += 1
        if epoch % args.every == 0 or epoch == len(STAGES) or time.monotonic() > end:
            score, error = test_score(module, test, args.test_samples)
            rows.append(
                {"epoch": epoch, "-log p": round(score, 3), "standard error": round(error, 3), "images": len(test),
                 "samples": args.test_samples, "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"}
            )  # fmt: skip
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(RESULTS / f"evidence_k{args.k}.csv", index=False)
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "rows": rows, "epoch": epoch}
        torch.save(state, path)


if __name__ == "__main__":
    main()
