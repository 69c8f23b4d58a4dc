"""What lies in the cache folder and its clean-up; standard library only, so that `doctor` answers at once."""

import hashlib
import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)
PACKS, MANIFESTS = "packs", "manifests"
META, DATA, LABELS, CHECKSUMS = "meta.json", "data.npy", "labels.npy", "checksums.npy"
UNFINISHED = ".tmp"


def packs_folder(cache_dir: str) -> Path:
    return Path(cache_dir).expanduser() / PACKS


def manifest_file(cache_dir: str, root: Path) -> Path:
    """Where the scan of the data set's folder `root` is kept."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()
    return Path(cache_dir).expanduser() / MANIFESTS / f"{name}.json"


def unfinished_file(manifest: Path) -> Path:
    """What this process writes before it takes the place of `manifest`."""
    return manifest.with_suffix(f".{os.getpid()}{UNFINISHED}")


def unfinished_folder(pack: Path) -> Path:
    """Where this process makes `pack` before it is renamed."""
    return pack.with_name(f"{pack.name}.{os.getpid()}{UNFINISHED}")


def lock_file(pack: Path) -> Path:
    """Held by whoever makes or removes `pack`, and removed by it."""
    return pack.with_name(f"{pack.name}.lock")


def leftovers(pack: Path) -> list[Path]:
    """What killed makers of `pack` left; to be asked by the holder of its lock."""
    return list(pack.parent.glob(f"{pack.name}.*{UNFINISHED}"))


def touch(path: Path) -> None:
    """Tells the clean-up when something was last used; what lies in a folder that is read-only cannot be told."""
    try:
        os.utime(path)
    except OSError as error:
        logger.debug("%s keeps its time of last use: %s", path, error)


def remove(folder: Path) -> None:
    """Takes `folder` away under its name at once; processes that have it open read on."""
    doomed = unfinished_folder(folder)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
