"""Cost of tracking every step: logging.every_n_steps=1 compared with logging=none, with a local and a distant store.

The measurement "sync" compares two tracked trainings with a checkpoint after each epoch. One of them does not write its
journal to the disk before each checkpoint, so that a power failure could lose events.

    taskset --cpu-list 0 python benchmarks/tracking.py 7 far server

The arguments are the number of rounds and a part of the name of the measurements, such as "cnn" or "far server". The
server runs on the processors that `taskset` excludes. Without `taskset`, it takes CPU time from the training, unlike a
distant server, and wall-clock times are too high.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from measurement import DIGITS, HERE, cost, photos, show_ratio
from turns import Training, Turns, compare, composed, prepared, start, take_turns

from experiments.checkpoints.callback import CheckpointOptions, Checkpoints
from experiments.config.build import build
from experiments.loops import Position
from experiments.runs.callbacks import builtin_callbacks
from experiments.runs.run import READ_HERE
from experiments.tracking.journal import Journal, undelivered

HOST = "127.0.0.1"
FAR_SECONDS = 0.1
SETTLE_SECONDS = 1.5
START_SECONDS = 120
TRACKED = (
    "logging=mlflow",
    "progress=none",
    "logging.run_name=benchmark",
    "logging.every_n_steps=1",
)
"""Overrides of the tracked side. Its turns are long compared with the three seconds between two deliveries."""
UNTRACKED = ("logging=none", "progress=none")


def main(rounds: int, wanted: str) -> None:
    """Runs the measurements whose name contains `wanted`."""
    start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [*photos(folder), "data.cache=memory"]
        with server(folder) as near, proxy(near) as far:
            for place, address in (("store", f"sqlite:///{folder}/mlflow.db"), ("far server", far)):
                for name, bound, epochs, job in (("cnn", 1.10, 15, DIGITS), ("mobilenetv2", 1.02, 3, images)):
                    if wanted in f"{name}, {place}":
                        stored = [*job, f"epochs={rounds * epochs}", f"logging.tracking_uri={address}"]
                        sides = {
                            "tracked": training(folder / f"{place} {name}", *TRACKED, *stored),
                            "untracked": training(folder / f"no {place} {name}", *UNTRACKED, *stored),
                        }
                        measure(f"tracking {name}, {place}", bound, sides, epochs)
            if wanted in "sync":
                measure_sync(folder, rounds, [*images, f"logging.tracking_uri=sqlite:///{folder}/mlflow.db"])


def measure(name: str, bound: float, sides: Mapping[str, Training], epochs: int) -> None:
    turns, (one, other) = take_turns(sides, epochs), sides
    used = compare(one, other, {side: taken.cpu_seconds for side, taken in turns.items()})
    show_ratio(f"{name}, CPU time of the training process", used, bound)
    ratio = compare(one, other, {side: taken.seconds for side, taken in turns.items()})
    show_ratio(name, ratio, bound)


def measure_sync(folder: Path, rounds: int, job: list[str], epochs: int = 3) -> None:
    """Measures checkpoints with and without writing the journal to the disk, and prints the time of one such write."""
    overrides = (*TRACKED, f"epochs={rounds * epochs}", *job)
    sides = {name: training(folder / name, *overrides, saving=name) for name in ("synced", "not synced")}
    measure("tracking sync, mobilenetv2, store", 1.02, sides, epochs)
    journal, seconds = Journal(folder / "journal"), []
    journal.open()
    for step in range(100):
        journal.append("metrics", step=step, values={"loss": 0.5})
        seconds.append(cost(journal.sync).wall)
    print(f"  writing the journal: median {statistics.median(seconds):.2g} s, maximum {max(seconds):.2g} s")


def training(output_dir: Path, *overrides: str, saving: str = "") -> Training:
    """Returns a training with the callbacks of a run; with `saving`, also with a checkpoint after each epoch."""
    cfg = composed(*overrides)
    model, splits = prepared(cfg)
    output_dir.mkdir()
    tracker = build(cfg.logging, READ_HERE, output_dir=output_dir)
    settings = {**cfg.checkpoint, "every_epoch": True, "metric": cfg.monitor.metric, "mode": cfg.monitor.mode}

    def settle() -> None:
        # Both sides sleep, because a busy system favours a thread that has slept.
        time.sleep(SETTLE_SECONDS)
        while tracker.run_id is not None and undelivered(output_dir):
            time.sleep(0.05)

    def train(turns: Turns) -> None:
        turns.settle = settle
        with tracker:
            callbacks = builtin_callbacks(cfg, splits, tracker, output_dir, began=0.0)
            sync = {"committing": tracker.sync} if saving == "synced" else {}
            options, place = CheckpointOptions(**settings), output_dir / "checkpoints"
            saved = Checkpoints(place, options, model=model, observers=callbacks, **sync)
            every = [*callbacks.values(), *([saved] if saving else []), turns]
            build(cfg.loop)(model, splits, epochs=cfg.epochs, start=Position(), callbacks=every)

    return train


@contextmanager
def process(*arguments: str, folder: Path | None = None) -> Iterator[None]:
    """Runs a Python program during the block. Its priority is low, as a distant server needs no CPU time here."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, *arguments],
        cwd=folder,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
        preexec_fn=use_other_processors,
        # Without this, the server starts seven more processes for a job queue that no run uses.
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        yield
    finally:
        os.killpg(started.pid, 15)
        started.wait()


def use_other_processors() -> None:
    """Moves the process to the processors that the benchmark itself may not use, if there are any."""
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(0, others)


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """Starts a real MLflow server on loopback and yields its port."""
    port = free_port()
    places = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    with process("-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1", *places):
        wait_for(f"http://{HOST}:{port}/health")
        yield port


@contextmanager
def proxy(target: int) -> Iterator[str]:
    """Starts a proxy that delays requests by FAR_SECONDS, and yields its address."""
    port = free_port()
    with process(str(HERE / "delaying_proxy.py"), str(port), str(target), str(FAR_SECONDS)):
        wait_for(f"http://{HOST}:{port}/health")
        yield f"http://{HOST}:{port}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def wait_for(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError(f"{address} does not answer")


if __name__ == "__main__":
    # Turns SIGTERM into SystemExit, so that the server is ended too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, " ".join(sys.argv[2:]))
