"""Time to train twelve heads on the frozen features of photos, from the start to the end of the processes.

    python benchmarks/heads.py --epochs 5
    python benchmarks/heads.py --photos 20000 --rounds 1    # as many photos as the public data set has, by links

This package runs one sweep command, in one process and with two workers. Its peers are heads_by_hand.py, which predicts
the features once and trains the heads with autologging; the same sweep without cached features; and one bare_keras.py
per head. KerasTuner and Ray Tune (heads_by_tuners.py) run once if they are installed.

No side logs models or draws figures; the time with figures is printed separately. Each side starts new processes with
an empty cache. Runs without cached features take equal times: two of them are timed and extrapolated to twelve, and
bare_keras.py is timed once.
"""

import argparse
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

from measurement import HERE, Cost, cats_dogs, empty_store, imagenet_weights, photos, run, show_ratio
from photos import photos as linked
from photos import scratch

LEARNING_RATES, DROPOUTS = (1e-4, 3e-4, 1e-3, 3e-3), (0.0, 0.2, 0.4)
HEADS = len(LEARNING_RATES) * len(DROPOUTS)
TWO, TWO_WORKERS = "ours, two workers", ("hydra/launcher=joblib", "sweep.workers=2")


class Heads(NamedTuple):
    folder: Path
    data: Path
    store: Path
    epochs: int

    def ours(self, *overrides: str) -> Cost:
        return self._swept(LEARNING_RATES, DROPOUTS, *overrides)

    def without_cache(self, runs: int) -> Cost:
        return self._swept(LEARNING_RATES[:runs], DROPOUTS[:1], "model.cache_features=false")

    def by_hand(self) -> Cost:
        return self._peer("heads_by_hand.py")

    def bare(self) -> Cost:
        return self._peer("bare_keras.py")

    def by_tuner(self, module: str) -> Cost:
        return self._peer("heads_by_tuners.py", module)

    def _peer(self, script: str, *arguments: str) -> Cost:
        options = ["--weights", imagenet_weights(), "--epochs", str(self.epochs)]
        return self._run([str(HERE / script), *arguments, str(self.data), *options])

    def _swept(self, learning_rates: Sequence[float], dropouts: Sequence[float], *overrides: str) -> Cost:
        swept = (("optimizer.learning_rate", learning_rates), ("model.dropout", dropouts))
        every = [f"{key}={','.join(map(str, values))}" for key, values in swept]
        fixed = [*photos(self.folder), f"data.path={self.data}", "data.allow_leakage=true", f"epochs={self.epochs}"]
        fixed += ["logging=mlflow", "logging.log_model=false", "logging.log_figures=false", *overrides]
        return self._run(["-m", "experiments.train", "-m", *every, *fixed])

    def _run(self, arguments: Sequence[str]) -> Cost:
        with tempfile.TemporaryDirectory(dir=self.folder) as directory:
            shutil.copy(self.store, Path(directory) / "mlflow.db")
            before = _cpu_seconds()
            wall = run([sys.executable, *arguments], Path(directory), EXPERIMENTS_CACHE=f"{directory}/cache")
            return Cost(wall, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(heads: Heads, rounds: int) -> dict[str, Cost]:
    """Returns the median cost of each side. The sides alternate, so that a busy minute affects all of them."""
    sides = {"ours": heads.ours, TWO: lambda: heads.ours(*TWO_WORKERS), "by hand": heads.by_hand}
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
        print("  " + ", ".join(f"{name} {costs[-1]}" for name, costs in found.items()), flush=True)
    costs = {name: Cost(*map(median, zip(*each, strict=True))) for name, each in found.items()}
    one, two = heads.without_cache(1), heads.without_cache(2)
    print(f"  without cached features, one run {one}, two {two}", flush=True)
    extrapolated = (first + (HEADS - 1) * (both - first) for first, both in zip(one, two, strict=True))
    bare = Cost(*(HEADS * each for each in heads.bare()))
    figures = heads.ours("logging.log_figures=true")
    others = {"ours, with figures": figures, "without cached features": Cost(*extrapolated), "bare scripts": bare}
    return {**costs, **others, **tuned(heads)}


def tuned(heads: Heads) -> dict[str, Cost]:
    names = {"keras_tuner": "KerasTuner", "ray": "Ray Tune"}
    return {name: heads.by_tuner(module) for module, name in names.items() if find_spec(module)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--photos", type=int, metavar="N", help="number of links to the photos to train on, in place of the photos"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder, count = Path(name), arguments.photos
        data = linked(folder, count, validation=count // 10) if count else cats_dogs(folder)
        costs = measured(Heads(folder, data, empty_store(folder), arguments.epochs), arguments.rounds)
    for side, (wall, cpu) in costs.items():
        note = {
            "without cached features": " (extrapolated from two runs)",
            "bare scripts": " (extrapolated from one)",
        }.get(side, "")
        print(f"  {HEADS} heads, {side}: {wall:.1f} s, {cpu:.1f} s of CPU time{note}")
    for number, kind in enumerate(("wall-clock time", "CPU time")):
        by_hand, without, bare = (
            costs[side][number] for side in ("by hand", "without cached features", "bare scripts")
        )
        # Two workers are not compared by CPU time, because they import TensorFlow twice to need less wall-clock time.
        for side in ("ours", TWO) if kind == "wall-clock time" else ("ours",):
            ours = costs[side][number]
            show_ratio(f"heads, {side} / by hand, {kind}", ours / by_hand, 1.10)
            show_ratio(f"heads, {side} / without cached features, {kind}", ours / without, 0.10)
            show_ratio(f"heads, {side} / bare scripts, {kind}", ours / bare, 0.10)


if __name__ == "__main__":
    main()
