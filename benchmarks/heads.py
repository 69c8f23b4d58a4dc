"""Twelve heads on the frozen features of photos, start to end: ours, by hand, and as twelve runs without kept features.

    python benchmarks/heads.py --epochs 5
    python benchmarks/heads.py --photos 20000 --rounds 1    # as many as the public data set has, by links

Ours is one command with `-m`: with its basic launcher, in one process as the script by hand is, which predicts the
features once and trains the heads with autologging; and with two workers. No side logs models or draws figures; what
figures cost is shown beside. Every side is a process of its own on photos that no cache knows. Runs without kept
features are alike: two are timed, twelve reckoned from them. Bare scripts (`bare_keras.py`) are alike too: one is
timed. KerasTuner and Ray Tune run once where they are installed.
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

    def ours(self, *words: str) -> Cost:
        return self._swept(LEARNING_RATES, DROPOUTS, *words)

    def without(self, runs: int) -> Cost:
        return self._swept(LEARNING_RATES[:runs], DROPOUTS[:1], "model.cache_features=false")

    def by_hand(self) -> Cost:
        return self._peer("heads_by_hand.py")

    def bare(self) -> Cost:
        return self._peer("bare_keras.py")

    def by_tuner(self, module: str) -> Cost:
        return self._peer("heads_by_tuners.py", module)

    def _peer(self, script: str, *words: str) -> Cost:
        options = ["--weights", imagenet_weights(), "--epochs", str(self.epochs)]
        return self._run([str(HERE / script), *words, str(self.data), *options])

    def _swept(self, learning_rates: Sequence[float], dropouts: Sequence[float], *words: str) -> Cost:
        swept = (("optimizer.learning_rate", learning_rates), ("model.dropout", dropouts))
        every = [f"{key}={','.join(map(str, values))}" for key, values in swept]
        fixed = [*photos(self.folder), f"data.path={self.data}", "data.allow_leakage=true", f"epochs={self.epochs}"]
        fixed += ["logging=mlflow", "logging.log_model=false", "logging.log_figures=false", *words]
        return self._run(["-m", "experiments.train", "-m", *every, *fixed])

    def _run(self, arguments: Sequence[str]) -> Cost:
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            shutil.copy(self.store, Path(own) / "mlflow.db")
            before = _processor_seconds()
            wall = run([sys.executable, *arguments], Path(own), EXPERIMENTS_CACHE=f"{own}/cache")
            return Cost(wall, _processor_seconds() - before)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(heads: Heads, rounds: int) -> dict[str, Cost]:
    """Medians; the sides take turns, so that a busy minute hits all of them."""
    sides = {"ours": heads.ours, TWO: lambda: heads.ours(*TWO_WORKERS), "by hand": heads.by_hand}
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
        print("  " + ", ".join(f"{name} {costs[-1]}" for name, costs in found.items()), flush=True)
    costs = {name: Cost(*map(median, zip(*each, strict=True))) for name, each in found.items()}
    one, two = heads.without(1), heads.without(2)
    print(f"  without kept features, one run {one}, two {two}", flush=True)
    reckoned = (first + (HEADS - 1) * (both - first) for first, both in zip(one, two, strict=True))
    bare = Cost(*(HEADS * each for each in heads.bare()))
    figures = heads.ours("logging.log_figures=true")
    others = {"ours, with figures": figures, "without": Cost(*reckoned), "bare scripts": bare}
    return {**costs, **others, **tuned(heads)}


def tuned(heads: Heads) -> dict[str, Cost]:
    names = {"keras_tuner": "KerasTuner", "ray": "Ray Tune"}
    return {name: heads.by_tuner(module) for module, name in names.items() if find_spec(module)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, metavar="N", help="links to train on instead of the photos themselves")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder, count = Path(name), arguments.photos
        data = linked(folder, count, validation=count // 10) if count else cats_dogs(folder)
        costs = measured(Heads(folder, data, empty_store(folder), arguments.epochs), arguments.rounds)
    for side, (wall, processor) in costs.items():
        note = {"without": " (reckoned from two runs)", "bare scripts": " (reckoned from one)"}.get(side, "")
        print(f"  {HEADS} heads, {side}: {wall:.1f} s, {processor:.1f} s of processor{note}")
    for number, kind in enumerate(("time", "processor time")):
        by_hand, without, bare = (costs[side][number] for side in ("by hand", "without", "bare scripts"))
        # Two workers load TensorFlow twice: more of the processor for less time.
        for side in ("ours", TWO) if kind == "time" else ("ours",):
            ours = costs[side][number]
            show_ratio(f"heads, {side} / by hand, {kind}", ours / by_hand, 1.10)
            show_ratio(f"heads, {side} / without kept features, {kind}", ours / without, 0.10)
            show_ratio(f"heads, {side} / bare scripts, {kind}", ours / bare, 0.10)


if __name__ == "__main__":
    main()
