"""Training epochs until TPE with pruning reaches the best value of a grid search over the same 64 combinations.

    python benchmarks/sweep_search.py [SEEDS]

The result is the median share of the grid's epochs over several seeds of the sampler.
"""

import csv
import statistics
import sys
import tempfile
from pathlib import Path

from measurement import run, show_ratio

SPACE = [
    "optimizer.learning_rate=1e-5,3e-5,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2",
    "model.dropout=0,0.1,0.2,0.3,0.4,0.5,0.6,0.7",
]
EPOCHS, SEEDS = 8, 5
JOB = ["data=digits", "model=mlp", f"epochs={EPOCHS}", "progress=none", "tensorboard.graph=false"]
JOB += ["logging.log_model=false", "logging.log_figures=false", "logging.system_metrics=false"]
BOUND = 0.5
PRUNER = f"{{_target_: optuna.pruners.MedianPruner, n_startup_trials: 5, n_warmup_steps: {EPOCHS // 2}}}"
"""Prunes no job in its first half, in which large learning rates are ahead of those that are better at the end."""


def main(seeds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        grid = swept(Path(name), "grid")
        best, steps = max(value for value, _ in grid), sum(epochs for _, epochs in grid)
        print(f"  grid: {len(grid)} jobs, {steps} epochs, best {best:.4f}", flush=True)
        shares = [needed(swept(Path(name), f"tpe{seed}", *tpe(seed)), best) / steps for seed in range(seeds)]
    print(f"  epochs until the grid's best, as a share of the grid's: {', '.join(f'{each:.2f}' for each in shares)}")
    show_ratio("sweep_search TPE with pruning / grid", statistics.median(shares), BOUND)


def tpe(seed: int) -> list[str]:
    return [
        f"sweep.sampler={{_target_: optuna.samplers.TPESampler, seed: {seed}, multivariate: true}}",
        f"sweep.pruner={PRUNER}",
        "sweep.n_trials=64",
    ]


def swept(folder: Path, name: str, *overrides: str) -> list[tuple[float, int]]:
    """Returns (best value, epochs) of each job in order; the value of a pruned job is minus infinity."""
    run([sys.executable, "-m", "experiments.train", "-m", *JOB, *SPACE, f"hydra.sweep.dir={name}", *overrides], folder)
    with (folder / name / "summary" / "jobs.csv").open() as file:
        return [(float(row["val_accuracy"]), int(row["epochs"])) for row in csv.DictReader(file)]


def needed(jobs: list[tuple[float, int]], best: float) -> float:
    """Returns the epochs of all jobs up to the first that reaches `best`; infinity if none does."""
    for number, (value, _) in enumerate(jobs, 1):
        if value >= best:
            return sum(epochs for _, epochs in jobs[:number])
    return float("inf")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
