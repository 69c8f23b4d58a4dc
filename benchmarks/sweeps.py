"""Overhead and total time of sweeps of tiny jobs, compared with one process of plain Keras per job.

    python benchmarks/sweeps.py

Measures the overhead of a job in a warm worker, the gain by a second worker, the total time of 24 jobs beside that of
bare_digits.py, and the idle time of two workers with jobs of unequal length.

The phases of the total time are printed, because start-up is a large part of it: on two cores, the two workers and the
sweep process need 18 s of CPU time to import TensorFlow and MLflow before the first job, which is a tenth of the time
of the plain scripts.
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
"""Jobs in which start-up and summary, which a second worker cannot speed up, take a smaller share of the time."""
TINY = [*DIGITS, "epochs=1", "progress=none", "logging.log_model=false", "logging.log_figures=false"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show_overhead(folder)
        one, two = (swept(folder, LONGER, f"sweep.workers={workers}", LONG) for workers in (1, 2))
        print(
            f"sweeps: two workers are {one / two:.2f} times as fast as one (bound {WORKERS_BOUND}) "
            f"in {LONGER} jobs, {LONG}"
        )
        sweep = folder / "phases"
        began = time.time()
        two = swept(folder, JOBS, "sweep.workers=2", f"hydra.sweep.dir={sweep}")
        show_phases(sweep, began, began + two)
        alone = [run([sys.executable, str(HERE / "bare_digits.py"), str(seed)], folder) for seed in range(TIMED_ALONE)]
        plain = JOBS * sum(alone) / TIMED_ALONE
        print(f"  plain Keras: {JOBS} processes one after another take {plain:.0f} s, extrapolated from {TIMED_ALONE}")
        print(f"sweeps: {JOBS} jobs in {two:.0f} s, {plain / two:.1f} times as fast (bound {SPEED_BOUND})")
        show_idle(folder)


def swept(folder: Path, jobs: int, *overrides: str) -> float:
    """Returns the seconds of the complete sweep command."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        seeds = ",".join(map(str, range(jobs)))
        command = [sys.executable, "-m", "experiments.train", "-m", *TINY, f"seed={seeds}", *SIDE_BY_SIDE, *overrides]
        return run(command, Path(directory))


def jobs_of(sweep: Path) -> tuple[list[float], list[float]]:
    """Returns the start times and the end times of the jobs, in seconds since 1970."""
    from optuna import load_study

    from experiments.sweeps.study_storage import storage

    trials = load_study(study_name=None, storage=storage(None, sweep)).trials
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    return starts, [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]


def show_phases(sweep: Path, began: float, ended: float) -> None:
    """Prints the phases of a sweep with two workers. Their first jobs trace the step that the other jobs share."""
    starts, ends = map(sorted, jobs_of(sweep))
    marks = [began, starts[0], ends[1], ends[-1], ended]
    names = ["until the first job", "first two jobs", f"the other {len(ends) - 2}", "the summary"]
    seconds = (later - earlier for earlier, later in pairwise(marks))
    print("  " + ", ".join(f"{name} {each:.1f} s" for name, each in zip(names, seconds, strict=True)))


def show_idle(folder: Path) -> None:
    """Prints the share of two workers' time without a job, from the start of the first job to the end of the last."""
    sweep = folder / "unequal"
    overrides = ["epochs=40,2,30,4,20,6,10,8", "sweep.workers=2", *SIDE_BY_SIDE, f"hydra.sweep.dir={sweep}"]
    run([sys.executable, "-m", "experiments.train", "-m", *TINY, *overrides], folder)
    starts, ends = jobs_of(sweep)
    idle = 1 - (sum(ends) - sum(starts)) / (2 * (max(ends) - min(starts)))
    print(f"sweeps: {idle:.1%} of two workers' time idle in {len(starts)} unequal jobs (bound {IDLE_BOUND:.0%})")


def show_overhead(folder: Path) -> None:
    """Prints the time of a complete job in a warm process, beyond that of building, tracing and training."""
    from turns import start

    start()
    # The two alternate, so that a busy minute affects both.
    taken = [(seconds(in_sweep, folder, seed), seconds(trained, seed)) for seed in range(JOBS // 2)]
    jobs, alone = map(median, zip(*taken, strict=True))
    overhead = median(job - without for job, without in taken)
    print(f"  a job in a warm worker: {jobs:.2f} s, of which building, tracing and training take {alone:.2f} s")
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
    # The settings of a worker for all jobs but its first, see worker.py.
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
