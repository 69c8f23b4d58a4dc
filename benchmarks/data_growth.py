"""Time per image of the scan, the packing epoch and the warm epoch at 1,000, 4,000 and 16,000 images.

    python benchmarks/data_growth.py

There is no peer: the time per image must not grow with the number of images. CPU time shows this reliably; wall-clock
time also depends on other processes of the machine.
"""

import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import tensorflow as tf
from measurement import Cost, cost, show_ratio
from photos import built, composed, photos, scratch

from experiments.data.base import Splits
from experiments.data.cache.listing import entries

COUNTS, SIZE, BOUND, ROUNDS = (1_000, 4_000, 16_000), 96, 1.15, 3
STAGES = ("scan", "packing epoch", "warm epoch")


def stages(root: Path, folder: Path) -> list[Cost]:
    """Returns the cost of each stage of STAGES."""
    cache_dir = Path(tempfile.mkdtemp(dir=folder))
    cfg = composed(root, SIZE, cache="disk", cache_dir=cache_dir)
    splits: list[Splits] = []
    costs = [cost(lambda: splits.append(built(cfg)))]
    for number in range(2):
        costs.append(cost(lambda: deque(splits[0].train.epoch(number), maxlen=0)))  # noqa: B023 -- called at once
        while not all(entry.state == "complete" for entry in entries(str(cache_dir))):
            time.sleep(0.05)  # otherwise the warm epoch includes the end of the packing
    shutil.rmtree(cache_dir)
    return costs


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        roots = {count: photos(folder, count) for count in COUNTS}
        found: dict[int, list[list[Cost]]] = {count: [] for count in COUNTS}
        stages(roots[COUNTS[0]], folder)  # not measured: the first use of TensorFlow costs more
        # The counts alternate with about as many images each, so that a busy minute affects all of them.
        for _ in range(ROUNDS):
            for count in COUNTS:
                found[count] += [stages(roots[count], folder) for _ in range(COUNTS[-1] // count // 4 or 1)]
    for number, stage in enumerate(STAGES):
        for kind in Cost._fields:
            show(
                f"{stage}, {kind} time", {n: [getattr(run[number], kind) for run in runs] for n, runs in found.items()}
            )


def show(text: str, seconds: Mapping[int, Sequence[float]]) -> None:
    each = {count: median(times) / count for count, times in seconds.items()}
    print(f"  {text}: {', '.join(f'{each[count] * 1e6:.0f} us at {count:,}' for count in COUNTS)}")
    for count in COUNTS[1:]:
        show_ratio(f"{text} per image, {count:,} / {COUNTS[0]:,} images", each[count] / each[COUNTS[0]], BOUND)


if __name__ == "__main__":
    main()
