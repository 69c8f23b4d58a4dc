"""Memory of one worker after the last of 100 tiny jobs, compared with its memory after the tenth.

    python benchmarks/sweep_memory.py [JOBS]

There is no peer: the memory must not grow from job to job.
"""

import os
import re
import subprocess
import sys
import tempfile

import psutil
from measurement import show_ratio

JOBS, FIRST, BOUND = 100, 10, 1.05
TINY = ["data=digits", "model=cnn", "epochs=1", "progress=none", "tensorboard.graph=false"]
TINY += ["logging.log_model=false", "logging.log_figures=false"]


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.train", "-m", *TINY, f"seed=range({jobs})"]
        quiet = subprocess.DEVNULL
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=quiet, stderr=subprocess.PIPE, text=True
        ) as sweep:
            assert sweep.stderr is not None
            watched = psutil.Process(sweep.pid)
            taken = [watched.memory_info().rss / 1e6 for line in sweep.stderr if re.match(r"#\d+ .*: \d", line)]
    print(f"  after job 1, {FIRST} and {jobs}: {taken[0]:.0f}, {taken[FIRST - 1]:.0f} and {taken[-1]:.0f} MB")
    show_ratio(f"sweep_memory after {jobs} jobs / after {FIRST}", taken[-1] / taken[FIRST - 1], BOUND)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
