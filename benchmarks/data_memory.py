"""Memory of two epochs over photos at 256 px with 2,000 and 20,000 photos, and that of TensorFlow's tutorial pipeline.

    python benchmarks/data_memory.py

Each side runs in a new process; its memory after the import of TensorFlow is subtracted. RssAnon, the memory of the
process itself, must stay below 300 MB. RssFile, pages that the system can reclaim, is printed separately.
"""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SIZE = 256
SIDES = (("ours", 2_000), ("ours", 20_000), ("tutorial", 2_000))
BOUND = 300


class Peak:
    """Maximum of RssAnon and of RssFile in MB, sampled a hundred times per second."""

    def __init__(self) -> None:
        self.anonymous, self.mapped = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            anonymous, mapped = _resident()
            self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def _resident() -> tuple[float, float]:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def child(side: str, root: Path, cache_dir: Path) -> None:
    import tensorflow as tf
    from photos import ours, tutorial

    tf.zeros(1).numpy()
    before, peak = _resident(), Peak()
    if side == "ours":
        split = ours(root, SIZE, cache="disk", cache_dir=cache_dir).train
        for epoch in range(2):
            for _ in split.epoch(epoch):
                pass
    else:
        for _ in tutorial(root, SIZE):
            pass
    peak.stop()
    print(peak.anonymous - before[0], peak.mapped - before[1])


def main() -> None:
    from measurement import show_ratio
    from photos import photos, scratch

    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        for side, count in SIDES:
            root = photos(folder, count)
            command = [sys.executable, __file__, side, str(root), str(folder / "cache")]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            anonymous, mapped = map(float, done.stdout.split())
            print(f"  {side}, {count} photos: {anonymous:.0f} MB anonymous, {mapped:.0f} MB mapped over the import")
            if side == "ours":
                show_ratio(f"anonymous memory at {count} photos / {BOUND} MB", anonymous / BOUND, 1.0)


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])) if len(sys.argv) > 1 else main()
