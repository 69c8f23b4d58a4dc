"""Total time of a job of three epochs with all its outputs, compared with a plain Keras script with autologging.

    python benchmarks/total_time.py [ROUNDS]

Both sides run the job of transfer_job.py; the peer is bare_keras.py.
"""

import sys
import tempfile
from pathlib import Path

from measurement import interleaved, show_ratio
from transfer_job import transfer_job

ROUNDS = 3
BOUND = 1.05


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        job = transfer_job(Path(name))
        sides = {
            "experiments": job.ours,
            # Computes the frozen layers in every epoch, as the script does.
            "without cached features": lambda: job.ours("model.cache_features=false"),
            "bare Keras": job.bare,
        }
        median = interleaved(sides, rounds)
    show_ratio("total_time", median["experiments"] / median["bare Keras"], BOUND)
    show_ratio("total_time without cached features", median["without cached features"] / median["bare Keras"], BOUND)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
