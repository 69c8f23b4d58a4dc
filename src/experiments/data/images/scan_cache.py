"""Stores the results of a scan, so that the next one reads only files that have changed."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.cache.paths import touch, unfinished
from experiments.data.images.headers import Header
from experiments.data.images.scan import Damage, FileState, ImageFile, Record, scan
from experiments.files import replacing

logger = logging.getLogger(__name__)
_FORMAT = 4  # 3: accepted animated WebP files; 2: without the number of bits in the header's mode

# Nanoseconds. A file that changed just before a scan is not stored: it may change again within one tick of the file
# system's clock, which its times would not show.
_SETTLED = 2 * 10**9
_Row = Sequence[Any]  # hash, header and state of a file, as JSON types


def cached_scan(root: Path, files: Sequence[ImageFile], cache_file: Path, *, rescan: bool) -> list[Record | Damage]:
    """Returns the results of `scan`, but reads only files whose size, times or inode differ from the last scan.

    Only the operating system sets the time of change (ctime), so a change goes unnoticed only if the clock is set back.
    rescan: reads every file. `cache_file` is updated; if it cannot be written, the next scan reads all files.
    """
    known = {} if rescan else _load(cache_file)
    if known:
        touch(cache_file)
    begun = time.time_ns()
    same = {file.path: record for file in files if (record := _unchanged(root, file, known)) is not None}
    rest = [file for file in files if file.path not in same]
    if same:
        text = "%d of %d images below '%s' are unchanged since the last scan (data.rescan=true reads all again)"
        logger.info(text, len(same), len(files), root)
    read = dict(zip((file.path for file in rest), scan(root, rest), strict=True))
    settled = {
        path: found
        for path, found in read.items()
        if isinstance(found, Record) and max(found.state.modified_ns, found.state.changed_ns) < begun - _SETTLED
    }
    if settled:
        _save(cache_file, root, {**known, **{path: record[2:] for path, record in settled.items()}})
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
    """Returns the rows by path; empty if the file is missing, corrupt or of another version."""
    try:
        first, _, content = cache_file.read_bytes().partition(b"\n")
        head = json.loads(first)
        sound = head["format"] == _FORMAT and head["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    files: dict[str, _Row] = json.loads(content) if sound else {}
    return files


def _save(cache_file: Path, root: Path, files: Mapping[str, _Row]) -> None:
    """Writes one line that describes the scan, for users and the clean-up, and one with all files."""
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
        with replacing(cache_file, unfinished(cache_file)) as partial:
            partial.write_bytes(json.dumps(head, ensure_ascii=False).encode() + b"\n" + content)
    except OSError as error:
        logger.debug("The scan cannot be stored in %s: %s", cache_file, error)
