"""Sweeps of tiny jobs: what a job costs beside its training, and the whole beside one process of plain Keras a job.

The phases of the whole say where its time goes: on two cores the two workers and the sweep's own process load
TensorFlow and MLflow for 18 s of processor time before the first job, which is as long as a tenth of the plain scripts.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

from measurement import DIGITS, HERE, run

JOBS, TIMED_ALONE = 24, 4
SECONDS_BOUND, SPEED_BOUND, WORKERS_BOUND, IDLE_BOUND = 0.5, 10, 1.5, 0.1
SIDE_BY_SIDE = ("hydra/launcher=joblib", "runtime.threads=1")
LONGER, LONG = 8, "epochs=30"
"""Where starting and summing up, which no second worker speeds up, are less of the whole than in tiny jobs."""
TINY = [*DIGITS, "epochs=1", "progress=none", "logging.log_model=false", "logging.log_figures=false"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show_overhead(folder)
        one, two = (swept(folder, LONGER, f"sweep.workers={workers}", LONG) for workers in (1, 2))
        print(f"sweeps: two workers are {one / two:.2f} times one (bound {WORKERS_BOUND}) in {LONGER} jobs, {LONG}")
        own = folder / "phases"
        began = time.time()
        two = swept(folder, JOBS, "sweep.workers=2", f"hydra.sweep.dir={own}")
        show_phases(own, began, began + two)
        alone = [run([sys.executable, str(HERE / "bare_digits.py"), str(seed)], folder) for seed in range(TIMED_ALONE)]
        plain = JOBS * sum(alone) / TIMED_ALONE
        print(f"  plain Keras: {JOBS} processes one after another take {plain:.0f} s, from {TIMED_ALONE} of them")
        print(f"sweeps: {JOBS} jobs in {two:.0f} s, {plain / two:.1f} times as fast (bound {SPEED_BOUND})")
        show_idle(folder)


def swept(folder: Path, jobs: int, *words: str) -> float:
    """Seconds of the whole command."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        seeds = ",".join(map(str, range(jobs)))
        command = [sys.executable, "-m", "experiments.train", "-m", *TINY, f"seed={seeds}", *SIDE_BY_SIDE, *words]
        return run(command, Path(own))


def jobs_of(sweep: Path) -> tuple[list[float], list[float]]:
    """When each began and ended, in seconds since 1970."""
    from optuna import load_study

    from experiments.sweeps.queue import storage

    trials = load_study(study_name=None, storage=storage(None, sweep)).trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    return starts, [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]


def show_phases(sweep: Path, began: float, ended: float) -> None:
    """Where the time of a sweep with two workers goes; the first jobs trace the step that the others share."""
    starts, ends = map(sorted, jobs_of(sweep))
    marks = [began, starts[0], ends[1], ends[-1], ended]
    names = ["until the first job", "first two jobs", f"the other {len(ends) - 2}", "the summary"]
    seconds = (later - earlier for earlier, later in pairwise(marks))
    print("  " + ", ".join(f"{name} {each:.1f} s" for name, each in zip(names, seconds, strict=True)))


def show_idle(folder: Path) -> None:
    """The share of two workers' time, from the first job's start to the last one's end, in which they had none."""
    own = folder / "unequal"
    words = ["epochs=40,2,30,4,20,6,10,8", "sweep.workers=2", *SIDE_BY_SIDE, f"hydra.sweep.dir={own}"]
    run([sys.executable, "-m", "experiments.train", "-m", *TINY, *words], folder)
    starts, ends = jobs_of(own)
    idle = 1 - (sum(ends) - sum(starts)) / (2 * (max(ends) - min(starts)))
    print(f"sweeps: {idle:.1%} of two workers' time idle in {len(starts)} unequal jobs (bound {IDLE_BOUND:.0%})")


def show_overhead(folder: Path) -> None:
    """Seconds of a job in a warm process with all that a run keeps, and of building, tracing and training alone."""
    from turns import start

    start()
    # In turn, so that a busy minute hits both.
    taken = [(seconds(in_sweep, folder, seed), seconds(trained, seed)) for seed in range(JOBS // 2)]
    jobs, alone = map(median, zip(*taken, strict=True))
    overhead = median(job - without for job, without in taken)
    print(f"  a job in a warm worker: {jobs:.2f} s, of which building, tracing and training are {alone:.2f} s")
    print(f"sweeps: overhead of a job {overhead:.2f} s (bound {SECONDS_BOUND} s)")


def seconds(job: Callable[..., None], *arguments: object) -> float:
    began = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - began


def in_sweep(folder: Path, seed: int) -> None:
    from turns import composed

    from experiments.runs.run import run as run_once
    from experiments.sweeps.compiled_models import freeze_imports, sharing_models

    freeze_imports()
    # As a worker does it but for the first job: see worker.py.
    cfg = composed(
        *TINY,
        "tensorboard.graph=false",
        f"seed={seed}",
        f"logging.tracking_uri=sqlite:///{folder}/mlflow.db",
        "logging.run_name=job",
    )
    with sharing_models() as assemble:
        run_once(cfg, Path(tempfile.mkdtemp(dir=folder)), assemble=assemble)


def trained(seed: int) -> None:
    from turns import composed

    from experiments.cli.status import SILENT
    from experiments.config.build import build
    from experiments.loops import Position
    from experiments.sweeps.compiled_models import sharing_models

    cfg = composed(*TINY, f"seed={seed}", "logging=none")
    with sharing_models() as assemble:
        built = assemble(cfg, None, SILENT)
        build(cfg.loop)(*built.target, epochs=1, start=Position(), callbacks=[])


if __name__ == "__main__":
    main()
