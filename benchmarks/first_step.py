"""Time from the start of the process to the end of the first training step, compared with a plain Keras script.

    python benchmarks/first_step.py [ROUNDS]

Both sides run the job of transfer_job.py; the peer is bare_keras.py.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measurement import interleaved, show_ratio
from transfer_job import transfer_job

ROUNDS = 5


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        job, end = transfer_job(Path(name)), Path(name) / "first_step_end"

        def timed(run: Callable[[], float]) -> float:
            began = time.time()
            run()
            return float(end.read_text()) - began

        stop = ("+callbacks.end._target_=first_step_end.FirstStepEnd", f"+callbacks.end.path={end}")
        sides = {
            "experiments": lambda: timed(lambda: job.ours(*stop)),
            "bare Keras": lambda: timed(lambda: job.bare("--stop-after-first-step", str(end))),
        }
        median = interleaved(sides, rounds)
    show_ratio("first_step", median["experiments"] / median["bare Keras"], 1.10)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
