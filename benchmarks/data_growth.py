"""Time per image of scan, packing epoch and warm epoch at 1,000, 4,000 and 16,000 images: it should stay the same."""

import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import tensorflow as tf
from measurement import show_ratio
from photos import built, composed, photos

COUNTS, SIZE, BOUND = (1_000, 4_000, 16_000), 96, 1.15
STAGES = ("scan", "packing epoch", "warm epoch")


def stages(root: Path, folder: Path) -> list[float]:
    """Seconds of each stage."""
    cache_dir = Path(tempfile.mkdtemp(dir=folder))
    cfg = composed(root, SIZE, cache="disk", cache_dir=cache_dir)
    times = [time.perf_counter()]
    split = built(cfg).train
    times.append(time.perf_counter())
    for epoch in range(2):
        for _ in split.epoch(epoch):
            pass
        times.append(time.perf_counter())
    shutil.rmtree(cache_dir, ignore_errors=True)
    return [end - begin for begin, end in pairwise(times)]


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    # hard links need the photos' own file system, which a temporary folder of the system may not be
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        roots = {count: photos(folder, count) for count in COUNTS}
        found: dict[int, list[list[float]]] = {count: [] for count in COUNTS}
        # as many images of each size in turn, so that a slow minute hits all of them
        for _ in range(2):
            for count in COUNTS:
                found[count] += [stages(roots[count], folder) for _ in range(COUNTS[-1] // count // 4 or 1)]
    each = {count: [median(times) / count for times in zip(*runs, strict=True)] for count, runs in found.items()}
    for number, stage in enumerate(STAGES):
        print(f"  {stage}: {', '.join(f'{each[count][number] * 1e6:.0f} us at {count:,}' for count in COUNTS)}")
        for count in COUNTS[1:]:
            ratio = each[count][number] / each[COUNTS[0]][number]
            show_ratio(f"{stage}, time per image at {count:,} over {COUNTS[0]:,}", ratio, BOUND)


if __name__ == "__main__":
    main()
