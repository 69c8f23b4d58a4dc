"""Photos of Dogs vs. Cats, from a folder of the user or from Microsoft's public archive."""

import hashlib
import logging
import re
import zipfile
from pathlib import Path
from typing import Unpack

from experiments.cli.progress_bar import progress
from experiments.data.base import Splits
from experiments.data.datasets.download import download
from experiments.data.datasets.image_folder import ImageOptions, image_folder
from experiments.data.images.headers import UnreadableImageError, read_header
from experiments.data.sampling import position
from experiments.errors import DataError
from experiments.files import exclusive, new_folder

logger = logging.getLogger(__name__)
_MEMBER = re.compile(r"PetImages/(Cat|Dog)/([^/]+\.jpg)")


def cats_dogs(path: str, *, url: str, sha256: str, **options: Unpack[ImageOptions]) -> Splits:
    """Returns splits of the photos below `path`, made by `image_folder`.

    If `path` does not exist, the archive at `url` (786 MB) is downloaded, checked against `sha256` and unpacked to
    train/, valid/ and test/ of `path`: 80, 10 and 10 % by a hash of the content, so that copies of a photo stay in one
    split. Unreadable files are left out.
    Raises DataError if that fails.
    """
    root = Path(path)
    if not root.exists():
        with exclusive(root):
            if not root.exists():
                _fetch(root, url, sha256)
    return image_folder(path, **options)


def _fetch(root: Path, url: str, sha256: str) -> None:
    archive = root.with_name(f"{root.name}.zip")
    offline = (
        f"Without network, put photos into '{root}' as train/cats, train/dogs, valid/cats and valid/dogs, set "
        "data.path to such a folder, or use data=cats_dogs_synthetic."
    )
    if not archive.exists():
        download(url, archive, sha256=sha256, offline=offline)
    try:
        with zipfile.ZipFile(archive) as opened, new_folder(root) as folder:
            unpack(opened, folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"'{archive}' cannot be unpacked: {error}. Delete it and start again. {offline}") from error
    archive.unlink()


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Writes the complete images of `archive` to {train,valid,test}/{cats,dogs} below `folder`."""
    members = [(info, match) for info in archive.infolist() if (match := _MEMBER.fullmatch(info.filename))]
    left_out = 0
    with progress("Unpacking photos", len(members)) as advance:
        for info, match in members:
            left_out += not _write_photo(archive.read(info), folder, match[1].lower(), match[2])
            advance(1)
    logger.info("Unpacked %d photos; %d unreadable ones were left out", len(members) - left_out, left_out)


def _write_photo(content: bytes, folder: Path, kind: str, name: str) -> bool:
    try:
        read_header(content)
    except UnreadableImageError:
        return False
    name = f"{kind}.{name}"
    place = position(hashlib.sha256(content).hexdigest())
    split = "valid" if place < 0.1 else "test" if place < 0.2 else "train"
    file = folder / split / f"{kind}s" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return True
