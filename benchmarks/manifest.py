"""What the manifest of a folder costs: against reading and hashing alone, and when nothing has changed.

    python benchmarks/manifest.py --photos FOLDER --count 20000

FOLDER holds JPEG files, else they are those of the other benchmarks; hard links of them make up the number. Rounds are
interleaved and medians compared; processor seconds tell what an idle machine would need.
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
"""Seconds for all photos, keeping what was found included."""


def main() -> None:
    arguments = _arguments()
    # hard links need the photos' own file system, which a temporary folder of the system may not be
    with tempfile.TemporaryDirectory(dir=arguments.folder or Path.cwd()) as folder:
        root = Path(folder) / "photos"
        files = linked(sorted((arguments.photos or cats_dogs(Path(folder))).rglob("*.jpg")), root, arguments.count)
        memory = Path(folder) / "memory.json"
        scan_cache._SETTLED = -(10**9)  # the links have just been made
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
        for name, (wall, processor) in taken.items():
            rate = len(files) / processor
            print(f"{name:<20} {wall:6.2f} s, {processor:6.2f} s of processor ({rate:,.0f} files a second)")
        for kind, seconds in zip(("seconds", "seconds of processor"), taken["manifest"], strict=True):
            show_ratio(f"manifest of {len(files):,} photos, {kind} of {BOUND:g}", seconds / BOUND, 1.0)


def linked(originals: Sequence[Path], root: Path, count: int) -> list[str]:
    """`count` hard links of `originals` in two class folders."""
    made = []
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], path)
        made.append(str(path))
    return made


def hashed(files: Sequence[str]) -> list[str]:
    """The least that a manifest must do."""
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def timed(blocks: dict[str, Block], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds and seconds of processor of each block, all run in turn `rounds` times."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            wall, processor = time.perf_counter(), time.process_time()
            block()
            found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: (median(wall for wall, _ in times), median(cpu for _, cpu in times)) for name, times in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with JPEG files")
    parser.add_argument("--folder", type=Path, help="where the links go: on the file system of the photos")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
