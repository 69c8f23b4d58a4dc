"""What a scan found, kept for the next one: a folder that has not changed is not read again."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.cache.paths import touch, unfinished_file
from experiments.data.images.headers import Header
from experiments.data.images.scan import Damage, FileState, ImageFile, Record, scan
from experiments.files import replacing

logger = logging.getLogger(__name__)
_FORMAT = 2

# A file that changed just before a scan may change again within one tick of the file system's clock.
_SETTLED = 2 * 10**9
_Row = Sequence[Any]  # the hash, the header and the state of a file, as JSON takes them


def cached_scan(root: Path, files: Sequence[ImageFile], cache_file: Path, *, rescan: bool) -> list[Record | Damage]:
    """As `scan`, but a file with the size, times and inode of the last scan is taken to have its content.

    The time of change (ctime) is set by the operating system alone, so only a clock that was set back can deceive it.
    rescan: reads every file. `cache_file` is brought up to date; if it cannot be written, the next scan reads all.
    """
    known = {} if rescan else _load(cache_file)
    if known:
        touch(cache_file)
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
        _save(cache_file, root, {**known, **{path: _row(record) for path, record in settled.items()}})
    return [same.get(file.path) or read[file.path] for file in files]


def _unchanged(root: Path, file: ImageFile, known: Mapping[str, _Row]) -> Record | None:
    row = known.get(file.path)
    if row is None:
        return None
    try:
        now = FileState.of(os.stat(f"{root}/{file.path}"))  # noqa: PTH116 -- called for every image
    except OSError:
        return None
    sha256, header, state = row
    return Record(file.path, file.label, sha256, Header(*header), now) if now == FileState(*state) else None


def _load(cache_file: Path) -> dict[str, _Row]:
    """The rows by path; none if there is no file, or one that is damaged or of another version."""
    try:
        first, _, content = cache_file.read_bytes().partition(b"\n")
        head = json.loads(first)
        sound = head["format"] == _FORMAT and head["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    files: dict[str, _Row] = json.loads(content) if sound else {}
    return files


def _save(cache_file: Path, root: Path, files: Mapping[str, _Row]) -> None:
    """One line on the whole, for people and the clean-up, and one with all files."""
    content = json.dumps(files, ensure_ascii=False).encode()
    head = {
        "format": _FORMAT,
        "root": str(root.absolute()),
        "count": len(files),
        "made": time.time(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache_file, unfinished_file(cache_file)) as partial:
            partial.write_bytes(json.dumps(head, ensure_ascii=False).encode() + b"\n" + content)
    except OSError as error:
        logger.debug("%s is not kept: %s", cache_file, error)


def _row(record: Record) -> _Row:
    header = record.header
    return record.sha256, (header.format, header.width, header.height, header.mode, header.orientation), record.state
