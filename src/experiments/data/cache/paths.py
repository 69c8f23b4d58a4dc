"""Names and paths in the cache folder; imports only the standard library, so that `doctor` starts at once."""

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
    """Returns the file with the scan results of the data set's folder `root`."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()
    return Path(cache_dir).expanduser() / MANIFESTS / f"{name}.json"


def unfinished(path: Path) -> Path:
    """Returns the path that this process writes before renaming it to `path`, a manifest or the folder of a pack."""
    return path.with_suffix(f".{os.getpid()}{UNFINISHED}")


def lock_file(pack: Path) -> Path:
    """Returns the file that a process locks while it writes or removes `pack`, and removes afterwards."""
    return pack.with_name(f"{pack.name}.lock")


def leftovers(pack: Path) -> list[Path]:
    """Returns what killed processes left of `pack`. The caller must have locked `lock_file(pack)`."""
    return list(pack.parent.glob(f"{pack.name}.*{UNFINISHED}"))


def touch(path: Path) -> None:
    """Updates the time of last use, which the clean-up reads; does nothing for files that cannot be written."""
    try:
        os.utime(path)
    except OSError as error:
        logger.debug("The time of last use of %s cannot be updated: %s", path, error)


def remove(folder: Path) -> None:
    """Renames `folder` and deletes it, so that its name is free at once; processes with open files can still read."""
    doomed = unfinished(folder)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
