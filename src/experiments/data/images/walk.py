"""Walk over folders of image files, which training, inspection and prediction share."""

import os
import stat
from collections.abc import Iterable
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from experiments.data.base import split_rules
from experiments.data.images.headers import EXTENSIONS

# Folders that operating systems and archive programs create beside those of the user.
SYSTEM = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
HIDDEN, OTHER, OUTSIDE = "hidden", "without the extension of an image", "outside of the class folders"
_FOLDER, _FILE = "folder", "file"


class Walk(NamedTuple):
    """Image files, folders, and by path the reason why something was left out. Paths have forward slashes."""

    files: list[str]
    folders: set[str]
    left_out: dict[str, str]


def walk(root: Path, first: Iterable[str] = ()) -> Walk:
    """Lists the image files below `root`, sorted by path, and reads none of them.

    Links come last, so that they do not determine the class of their targets, and are left out if they lead to what is
    listed already or to a folder above. first: names of folders in `root` that are listed before all others.
    """
    found, above = Walk([], set(first), {}), root.resolve()
    seen = {(status.st_dev, status.st_ino) for status in map(os.stat, (above, *above.parents))}
    depth = 1 if found.folders else 0  # of class folders
    for starts in (sorted(found.folders), [""]):
        pending = [(False, False, path) for path in starts]  # real folders, then linked folders, then linked files
        real: dict[int, str] = {}  # files by the inode that the folder lists, which some file systems invent
        while pending:
            path = heappop(pending)[2]
            try:
                status = os.stat(f"{root}/{path}")  # noqa: PTH116 -- called for every folder and link
                entries = list(os.scandir(f"{root}/{path}")) if stat.S_ISDIR(status.st_mode) else []
            except OSError as error:
                found.left_out[path or "."] = str(error.strerror)
                continue
            key, twin = (status.st_dev, status.st_ino), real.get(status.st_ino)
            again = key in seen or (twin and os.path.samefile(f"{root}/{path}", f"{root}/{twin}"))  # noqa: PTH121
            if path and again and split_rules() > 1:
                found.left_out[path] = "linked again"
                continue
            seen.add(key)
            if stat.S_ISREG(status.st_mode):
                found.files.append(path)
            for entry in entries:
                inside = f"{path}/{entry.name}".lstrip("/")
                kind = _kind(entry, inside.count("/") > depth)
                if kind == _FILE and not entry.is_symlink():
                    found.files.append(inside)
                    real[entry.inode()] = inside
                elif kind not in (_FILE, _FOLDER):
                    found.left_out[inside] = kind
                elif inside not in found.folders:
                    heappush(pending, (entry.is_symlink(), kind == _FILE, inside))
                    found.folders.update([inside] if kind == _FOLDER else [])
    found.files.sort(key=lambda path: path.split("/"))
    return found


def _kind(entry: "os.DirEntry[str]", in_class: bool) -> str:
    """Returns _FOLDER or _FILE, or the reason to leave the entry out. Asks the system again only about links."""
    try:
        kind = _FOLDER if entry.is_dir() else _FILE if entry.is_file() else "not a regular file"
    except OSError as error:  # a link to itself
        return str(error.strerror)
    if kind == _FILE and not entry.name.lower().endswith(EXTENSIONS if split_rules() > 1 else EXTENSIONS[:-1]):
        return OTHER
    if kind == _FOLDER and in_class and split_rules() == 1:  # version 1 left out hidden folders only beside classes
        return kind
    return HIDDEN if entry.name.startswith(".") or entry.name in SYSTEM else kind
