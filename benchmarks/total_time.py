"""Time of the whole job, three epochs and all that is left behind, against a bare Keras script with autologging."""

import sys
import tempfile
from pathlib import Path

from measurement import interleaved, show_ratio
from transfer_job import transfer_job

ROUNDS = 3


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        job = transfer_job(Path(name))
        median = interleaved({"experiments": job.ours, "bare Keras": job.bare}, rounds)
    show_ratio("total_time", median["experiments"] / median["bare Keras"], 1.05)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
