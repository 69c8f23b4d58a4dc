"""What a scan found, kept for the next one: a folder that has not changed is not read again."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from experiments.data.integrity import Header
from experiments.data.scan import Damage, FileState, ImageFile, Record, scan

logger = logging.getLogger(__name__)
_FORMAT = 1
# A file that changed just before a scan may change again within one tick of the file system's clock.
_SETTLED = 2 * 10**9
_Known = Mapping[str, Record]


def memory_of(root: Path, cache_dir: str) -> Path:
    """Where the scan of `root` is kept below `cache_dir`."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()
    return Path(cache_dir).expanduser() / "manifests" / f"{name}.json"


def scan_again(root: Path, files: Sequence[ImageFile], memory: Path, *, rescan: bool) -> list[Record | Damage]:
    """As `scan`, but a file with the size, times and inode of the last scan is taken to have its content.

    The time of change (ctime) is set by the operating system alone, so only a clock that was set back can deceive it.
    rescan: reads every file. `memory` is brought up to date; where it cannot be written, the next scan reads all again.
    """
    known = {} if rescan else _load(memory)
    begun = time.time_ns()
    same = {file.path: record for file in files if (record := _unchanged(root, file, known)) is not None}
    rest = [file for file in files if file.path not in same]
    if same:
        logger.info(
            "%d of %d images below '%s' are as they were when last read (data.rescan=true reads all again)",
            len(same),
            len(files),
            root,
        )
    read = dict(zip((file.path for file in rest), scan(root, rest), strict=True))
    settled = {
        path: found
        for path, found in read.items()
        if isinstance(found, Record) and max(found.state.modified_ns, found.state.changed_ns) < begun - _SETTLED
    }
    if settled:
        _save(memory, {**known, **same, **settled})
    return [same.get(file.path) or read[file.path] for file in files]


def _unchanged(root: Path, file: ImageFile, known: _Known) -> Record | None:
    record = known.get(file.path)
    if record is None:
        return None
    try:
        now = FileState.of(os.stat(f"{root}/{file.path}"))  # noqa: PTH116 -- called for every image
    except OSError:
        return None
    return Record(file.path, file.label, record.sha256, record.header, now) if now == record.state else None


def _load(memory: Path) -> dict[str, Record]:
    """Nothing where there is no memory, or one that is damaged or of another version."""
    try:
        checksum, _, content = memory.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        return {}
    stored = json.loads(content)
    if stored["format"] != _FORMAT:
        return {}
    return {
        path: Record(path, 0, sha256, Header(*header), FileState(*state))
        for path, (sha256, header, state) in stored["files"].items()
    }


def _save(memory: Path, records: _Known) -> None:
    files = {path: (record.sha256, _header(record), record.state) for path, record in records.items()}
    content = json.dumps({"format": _FORMAT, "files": files}, ensure_ascii=False).encode()
    partial = memory.with_suffix(f".{os.getpid()}.tmp")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        partial.replace(memory)
    except OSError as error:
        logger.debug("%s is not kept: %s", memory, error)
        with suppress(OSError):
            partial.unlink()


def _header(record: Record) -> tuple[str, int, int, str, int]:
    header = record.header
    return header.format, header.width, header.height, header.mode, header.orientation
