"""Functions shared by the benchmarks: interleaved rounds, processes, the data of both sides, and printed ratios."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

DIGITS = ["data=digits", "model=cnn"]
"""Overrides of the training with the shortest steps."""
HERE = Path(__file__).parent
REAL_DATA = os.environ.get("EXPERIMENTS_REAL_DATA")


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each side. The sides alternate, so that a busy minute affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(sides[name]())
    for name, taken in seconds.items():
        print(f"  {name}: median {statistics.median(taken):.4g} s of {', '.join(f'{each:.4g}' for each in taken)}")
    return {name: statistics.median(taken) for name, taken in seconds.items()}


class Cost(NamedTuple):
    """Wall-clock and CPU seconds. CPU time depends little on other processes of the machine."""

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def show_ratio(name: str, ratio: float, bound: float) -> None:
    print(f"{name}: ratio {ratio:.3f} (bound {bound:.2f})", flush=True)


def run(command: Sequence[str], folder: Path, **environment: str) -> float:
    """Returns the seconds from start to end of `command` in `folder`. If it fails, exits with its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    modules = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    # This package sets these variables itself; the peer gets them too.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": modules}
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=kept | quiet | environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return seconds


def cats_dogs(folder: Path) -> Path:
    """Folder with train|valid/{cats,dogs}: real photos if EXPERIMENTS_REAL_DATA is set, else drawn ones in `folder`."""
    if REAL_DATA is not None:
        return Path(REAL_DATA) / "cats_dogs"
    from experiments.data.datasets.synthetic import Drawing, ensure_drawn

    root = folder / "cats_dogs"
    ensure_drawn(root, Drawing(num_examples=1200, size=400, draw_seed=0))
    return root


def imagenet_weights() -> str:
    """File with MobileNetV2 weights (alpha 0.35) in EXPERIMENTS_REAL_DATA, else "null": random weights are as fast."""
    found = sorted((Path(REAL_DATA) / "weights").glob("*0.35*.h5")) if REAL_DATA is not None else []
    return str(found[0]) if found else "null"


def photos(folder: Path) -> list[str]:
    """Returns the overrides for a frozen MobileNetV2 (alpha 0.35, 160 px, batch 32) on `cats_dogs`."""
    return [
        *("experiment=cats_dogs_transfer", f"data.path={cats_dogs(folder)}", "data.image_size=[160,160]"),
        *("model.alpha=0.35", f"model.weights={imagenet_weights()}"),
    ]


def empty_store(folder: Path) -> Path:
    """Creates a SQLite store with its tables, so that no side is timed with their creation."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{folder}/empty.db").search_experiments()
    return folder / "empty.db"
