"""Download and unpacking of an archive with the layout of the public one, from a loopback server."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.data import cats_dogs
from experiments.errors import DataError

PHOTOS = 60


def archive(photos: int = PHOTOS) -> bytes:
    """Returns a zip file with PetImages/{Cat,Dog}/N.jpg and, as in the real archive, files that are not images."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("readme[1].txt", "text")
        for kind in ("Cat", "Dog"):
            opened.writestr(f"PetImages/{kind}/Thumbs.db", "no image")
            opened.writestr(f"PetImages/{kind}/666.jpg", b"")
            opened.writestr(f"PetImages/{kind}/667.jpg", b"<html>")
            for number in range(photos):
                opened.writestr(f"PetImages/{kind}/{number}.jpg", photo(number))
    return stream.getvalue()


def photo(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def files(root: Path) -> dict[str, int]:
    return {
        folder.relative_to(root).as_posix(): len(list(folder.iterdir()))
        for folder in sorted(root.glob("*/*"))
        if folder.is_dir()
    }


def test_archive_is_downloaded_and_split(
    tmp_path: Path, serve: Callable[[bytes], Any], options: dict[str, Any]
) -> None:
    content, root = archive(), tmp_path / "Daten ö" / "cats dogs"
    server = serve(content)
    server.break_after, server.times = len(content) // 2, 1
    splits = cats_dogs(str(root), url=server.url, sha256=hashlib.sha256(content).hexdigest(), **options)
    found = files(root)
    assert sorted(found) == [f"{split}/{kind}" for split in ("test", "train", "valid") for kind in ("cats", "dogs")]
    assert sum(found.values()) == 2 * PHOTOS
    assert found["train/cats"] + found["train/dogs"] > 0.65 * 2 * PHOTOS
    assert splits.train.spec.class_names == ("cats", "dogs")
    (written,) = root.glob("*/cats/cat.0.jpg")
    assert written.read_bytes() == photo(0)
    assert (root / written.parts[-3] / "dogs/dog.0.jpg").exists(), "the same photo must not be in two splits"
    assert [entry.name for entry in root.parent.iterdir() if not entry.name.endswith(".lock")] == ["cats dogs"]
    asked = len(server.requested)
    cats_dogs(str(root), url=server.url, sha256="", **options)
    assert len(server.requested) == asked


def test_missing_network_is_reported_with_alternatives(tmp_path: Path, options: dict[str, Any]) -> None:
    root = tmp_path / "absent"
    with pytest.raises(DataError) as raised:
        cats_dogs(str(root), url="http://127.0.0.1:9/x.zip", sha256="", **options)
    assert str(raised.value) == (
        "http://127.0.0.1:9/x.zip cannot be downloaded: the server is not reachable. Without network, put photos into "
        f"'{root}' as train/cats, train/dogs, valid/cats and valid/dogs, set data.path to such a folder, or use "
        "data=cats_dogs_synthetic."
    )
    assert not root.exists()


def test_invalid_archive_leaves_no_folder(
    tmp_path: Path, serve: Callable[[bytes], Any], options: dict[str, Any]
) -> None:
    content = b"no zip file"
    with pytest.raises(DataError, match=r"absent\.zip' cannot be unpacked: File is not a zip file\. Delete it"):
        cats_dogs(
            str(tmp_path / "absent"),
            url=serve(content).url,
            sha256=hashlib.sha256(content).hexdigest(),
            **options,
        )
    assert not (tmp_path / "absent").exists()


@pytest.mark.real_data
def test_real_photos_are_read(real_data: Path, options: dict[str, Any]) -> None:
    splits = cats_dogs(str(real_data / "cats_dogs"), url="", sha256="", **{**options, "batch_size": 32})
    assert (splits.train.spec.class_counts, splits.validation.spec.class_counts) == ((400, 400), (100, 100))
    assert splits.test is None
    inputs, labels = next(iter(splits.train.epoch(0)))
    assert inputs.shape == (32, 16, 12, 3)
    assert set(labels.numpy()) == {0, 1}
