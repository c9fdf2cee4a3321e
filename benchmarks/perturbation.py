"""Prediction of interferon-beta's effect on a type of blood cells that was never seen stimulated (Kang 2018).

    MIXVI_DATA_DIR=... uv run python benchmarks/perturbation.py --seeds 5

The stimulated cells of one of seven types are held out in turn; models and baselines learn from all other cells and
predict them from the type's control cells (`mixvi.perturb.leave_one_out`). Models: a VAE of counts with latent
arithmetic, one step for all types (scGen's) and one that depends on the place, and a CVAE that is told the condition.
Results are kept by type in benchmarks/results/perturbation_*.csv and go on where they ended; the summary is
perturbation.md.
"""

import argparse
from pathlib import Path

import pandas as pd

import mixvi

RESULTS = Path(__file__).parent / "results"
TYPES = ["B", "CD4 T", "CD8 T", "NK", "CD14+ Mono", "FCGR3A+ Mono", "Dendritic"]
TREATMENT = ("condition", "control", "stimulated", "cell_type")
RUNS = {
    "VAE, local step": (mixvi.VAE, {"shift": {"local": True}}),
    "VAE, one step": (mixvi.VAE, {"baselines": ()}),
    "CVAE, counterfactual": (mixvi.CVAE, {"setup": {"batch_key": "condition"}, "baselines": ()}),
}
COLUMNS = {
    ("pearson of change", "all"): "Pearson of change, all",
    ("pearson of change", "top 100"): "top 100",
    ("r2 of means", "all"): "R2 of means, all",
    ("r2 of means", "top 100"): "top 100 ",
    ("r2 of variances", "all"): "R2 of variances",
    ("mse", "all"): "MSE",
    ("energy distance", "all"): "energy distance",
    ("de overlap", "top 100"): "DE overlap",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    args = parser.parse_args()
    cells = mixvi.datasets.kang()
    cells = cells[cells.obs["cell_type"].isin(TYPES)].copy()
    tables = []
    for name in args.runs:
        model_class, settings = RUNS[name]
        path = RESULTS / f"perturbation_{name.replace(', ', '_').replace(' ', '_').lower()}.csv"
        for seed in range(args.seeds):
            table = mixvi.perturb.leave_one_out(
                model_class, cells, *TREATMENT, groups=TYPES, seed=seed, path=path,
                train={"max_epochs": args.epochs, "train_size": 1.0}, **settings,
            )  # fmt: skip
        tables.append(table.replace({"prediction": {model_class.__name__: name}}))
    write_summary(pd.concat(tables), args)


def write_summary(table, args):
    """Means over types and seeds, and in how many types the first run is above all baselines."""
    seeds = table.groupby("prediction")["seed"].nunique()
    mean = table.groupby(["prediction", "metric", "genes"])["value"].mean().unstack(["metric", "genes"])
    lines = [
        f"Kang 2018, {len(TYPES)} types held out in turn, {args.epochs} epochs; means over types and seeds.",
        "",
        "| prediction | " + " | ".join(name.strip() for name in COLUMNS.values()) + " | seeds |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for name in mean.index:
        figures = [f"{mean.loc[name, key]:.{4 if key[0] == 'mse' else 3}f}" for key in COLUMNS]
        lines.append(f"| {name} | {' | '.join(figures)} | {seeds[name]} |")
    by_type = table.groupby(["metric", "genes", "held_out", "prediction"])["value"].mean().unstack()
    models = [name for name in RUNS if name in by_type]
    for name in models:
        lines.append("")
        for key in (("pearson of change", "all"), ("pearson of change", "top 100"), ("energy distance", "all")):
            values = by_type.loc[key] * (-1 if key[0] == "energy distance" else 1)
            better = values[name] > values.drop(columns=models).max(axis=1)
            lines.append(
                f"- {name}: {' '.join(key)} better than any baseline's in {better.sum()} of {len(better)} types"
            )
    (RESULTS / "perturbation.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
