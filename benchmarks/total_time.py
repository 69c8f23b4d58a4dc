"""Time of the whole job, three epochs and all that is left behind, against a bare Keras script with autologging."""

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
            # The script computes the frozen layers in every epoch; so does this.
            "without kept features": lambda: job.ours("model.cache_features=false"),
            "bare Keras": job.bare,
        }
        median = interleaved(sides, rounds)
    show_ratio("total_time", median["experiments"] / median["bare Keras"], BOUND)
    show_ratio("total_time without kept features", median["without kept features"] / median["bare Keras"], BOUND)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
