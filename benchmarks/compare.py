"""Time of `experiments compare best=20`, compared with `mlflow.search_runs` over all runs.

    python benchmarks/compare.py [RUNS]

The runs, each with 40 parameters and 20 metrics, are inserted into the tables of a SQLite store. Both sides are timed
without their imports, the peak of their Python memory is measured in another round.
"""

import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import mlflow
from many_runs import insert_runs
from measurement import cost, empty_store, show_ratio
from omegaconf import OmegaConf

BOUND_SECONDS = 3.0


def peak(work: Callable[[], object]) -> float:
    """Peak of Python's memory during `work`, in MB."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found


def main(count: int) -> None:
    from experiments.comparison.side_by_side import compare

    with tempfile.TemporaryDirectory() as name:
        store = empty_store(Path(name))
        experiment = insert_runs(store, count)
        tracking = {"tracking_uri": f"sqlite:///{store}", "experiment_name": experiment}
        nothing = dict.fromkeys(("sweep", "filter", "note", "diff", "runs"))
        command = OmegaConf.create({"best": 20, "format": "json", "logging": tracking, **nothing})
        mlflow.set_tracking_uri(tracking["tracking_uri"])
        sides = {
            "experiments compare best=20": lambda: compare(command),
            "mlflow.search_runs": lambda: mlflow.search_runs(experiment_names=[experiment], max_results=count),
        }
        costs = {side: cost(work) for side, work in sides.items()}
        for side, work in sides.items():
            print(f"  {side}: {costs[side].wall:.2f} s, {costs[side].cpu:.2f} s of CPU time, {peak(work):.0f} MB")
    ours, all_runs = costs.values()
    show_ratio(f"compare best=20 of {count} runs", ours.cpu / all_runs.cpu, BOUND_SECONDS / all_runs.cpu)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
