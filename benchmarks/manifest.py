"""Time to create the manifest of a folder of photos, compared with only reading and hashing its files.

    python benchmarks/manifest.py --photos FOLDER --count 20000

Measures a first scan and one of an unchanged folder. FOLDER contains JPEG files (by default the photos of the other
benchmarks); hard links to them make up the count. Rounds are interleaved and medians compared. CPU time is printed too,
because wall-clock time also depends on other processes of the machine.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from measurement import cats_dogs, show_ratio

from experiments.data.images import scan_cache
from experiments.data.images.class_folders import class_folders
from experiments.data.images.manifest import read_manifest

Block = Callable[[], object]
BOUND = 2.0
"""Maximum seconds for all photos, including the time to save the scan."""


def main() -> None:
    arguments = _arguments()
    # Hard links need the file system of the photos, which the system's temporary folder may not be on.
    with tempfile.TemporaryDirectory(dir=arguments.folder or Path.cwd()) as folder:
        root = Path(folder) / "photos"
        files = linked(sorted((arguments.photos or cats_dogs(Path(folder))).rglob("*.jpg")), root, arguments.count)
        memory = Path(folder) / "memory.json"
        scan_cache._SETTLED = -(10**9)  # else the scan is not saved, because the links are only seconds old
        read_manifest(root, class_folders(root, 0.1).splits(), memory)

        def first() -> object:
            memory.unlink()
            return read_manifest(root, class_folders(root, 0.1).splits(), memory)

        blocks = {
            "read and hash": lambda: hashed(files),
            "manifest": first,
            "manifest, unchanged": lambda: read_manifest(root, class_folders(root, 0.1).splits(), memory),
        }
        taken = timed(blocks, arguments.rounds)
        for name, (wall, cpu) in taken.items():
            rate = len(files) / cpu
            print(f"{name:<20} {wall:6.2f} s, {cpu:6.2f} s of CPU time ({rate:,.0f} files a second)")
        for kind, seconds in zip(("wall-clock seconds", "CPU seconds"), taken["manifest"], strict=True):
            show_ratio(f"manifest of {len(files):,} photos, {kind} / {BOUND:g}", seconds / BOUND, 1.0)


def linked(originals: Sequence[Path], root: Path, count: int) -> list[str]:
    """Creates `count` hard links to `originals` in two class folders and returns their paths."""
    made = []
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], path)
        made.append(str(path))
    return made


def hashed(files: Sequence[str]) -> list[str]:
    """Reads and hashes the files, which is the minimum work of a manifest."""
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def timed(blocks: dict[str, Block], rounds: int) -> dict[str, tuple[float, float]]:
    """Returns the median wall-clock and CPU seconds of each block. All blocks run in turn, `rounds` times."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            wall, used = time.perf_counter(), time.process_time()
            block()
            found[name].append((time.perf_counter() - wall, time.process_time() - used))
    return {name: (median(wall for wall, _ in times), median(cpu for _, cpu in times)) for name, times in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with JPEG files")
    parser.add_argument("--folder", type=Path, help="folder for the links, on the file system of the photos")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
