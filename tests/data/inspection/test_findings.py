"""Findings of an inspection in a folder with one case of each problem, and in arrays."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.data import Splits, from_arrays, image_folder
from experiments.data.inspection.findings import Inspection, inspect_splits, size_summary, spread_of
from experiments.data.inspection.page import write_page
from experiments.data.inspection.thumbnails import thumbnail

MakePhotos = Callable[[Path, dict[str, int]], Path]


@pytest.fixture
def odd(tmp_path: Path, make_photos: MakePhotos, options: dict[str, Any]) -> Inspection:
    """Inspection of a folder with one case of each problem."""
    root = make_photos(tmp_path / "odd ö & <b>", {f"{s}/{k}": 4 for s in ("train", "valid") for k in ("cats", "dogs")})
    cats, dogs = root / "train/cats", root / "train/dogs"
    (cats / "cut.jpg").write_bytes((cats / "000.jpg").read_bytes()[:-20])
    (cats / "empty.gif").write_bytes(b"")
    picture = Image.open(cats / "001.jpg")
    picture.save(cats / "renamed.jpg", "PNG")
    picture.convert("L").save(cats / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(dogs / "phone.jpg", exif=exif)
    picture.save(dogs / "inside.jpg", quality=70)
    content = (dogs / "inside.jpg").read_bytes()
    start = content.index(b"\xff\xda") + 16
    (dogs / "inside.jpg").write_bytes(content[:start] + b"\xff\xc3" + content[start + 2 :])
    picture.resize((2, 20)).save(dogs / "tiny.bmp")
    shutil.copy(cats / "002.jpg", root / "valid/cats/leak.jpg")
    shutil.copy(cats / "003.jpg", dogs / "torn.jpg")
    (dogs / "notes.txt").write_text("no image")
    return inspect_splits(
        image_folder(str(root), **{**options, "on_corrupt": "skip", "allow_leakage": True}), decode=True
    )


def test_each_problem_is_found(odd: Inspection) -> None:
    root = odd.specs["train"].source
    assert {finding.title: (finding.details, finding.wrong) for finding in odd.findings} == {
        "Corrupt pixels": ((f"{root}/train/dogs/inside.jpg",), True),
        "Corrupt": (("train/cats/cut.jpg (truncated)", "train/cats/empty.gif (empty)"), True),
        "Wrong extension": (("train/cats/renamed.jpg (is PNG)",), False),
        "Not RGB": (("train/cats/grey.png (L)",), False),
        "Rotated by EXIF": (("train/dogs/phone.jpg (orientation 6)",), False),
        "Tiny": (("train/dogs/tiny.bmp (2 x 20)",), False),
        "Not used": (("train/dogs/notes.txt (without the extension of an image)",), False),
        "In several splits": (("train/cats/002.jpg (cats) = valid/cats/leak.jpg (cats)",), True),
        "In several classes": (("train/cats/003.jpg (cats) = train/dogs/torn.jpg (dogs)",), True),
        "More than once in a split": (("train/cats/003.jpg (cats) = train/dogs/torn.jpg (dogs)",), False),
    }
    assert odd.specs["train"].class_counts == (6, 8)
    assert (20, 24) in odd.sizes, "the photo rotated by EXIF must be upright"


def test_page_contains_findings_and_pictures(odd: Inspection, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", odd, samples=3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for finding in odd.findings:
        assert f"<h3>{finding.title} <b>{len(finding.details)}</b></h3>" in page
    assert page.count("no picture") == 1
    assert "odd ö &amp; &lt;b&gt;" in page
    assert "<b>/" not in page
    assert page.count('src="data:image/jpeg;base64,') == (3 * 2 - 1) + 1 + 1 + 1 + 1 + 2 + 2 + 2
    assert 'src="http' not in page
    assert odd.specs["train"].digest in page


def test_thumbnail_is_upright_and_small(odd: Inspection) -> None:
    (phone,) = (one for one in odd.examples["train"] if one.name.endswith("phone.jpg"))
    jpeg = thumbnail(odd.sources["train"], phone.position)
    assert jpeg is not None
    assert Image.open(io.BytesIO(jpeg)).size == (20, 24)


def arrays(inputs: Any, **changes: Any) -> Splits:
    labels = np.arange(len(inputs)) % 2
    return from_arrays((inputs, labels), (inputs[:2], labels[:2]), batch_size=4, shuffle=True, seed=0, **changes)


def test_duplicates_in_arrays_are_found(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (9, 8, 6), np.uint8)
    inputs[5] = inputs[4]
    found = inspect_splits(arrays(inputs), decode=True)
    assert {finding.title: finding.details for finding in found.findings} == {
        "In several splits": ("train[0] (0) = validation[0] (0)", "train[1] (1) = validation[1] (1)"),
        "In several classes": ("train[4] (0) = train[5] (1)",),
        "More than once in a split": ("train[4] (0) = train[5] (1)",),
    }
    assert size_summary(found.sizes) == "every one is 6 x 8 pixels"
    write_page(tmp_path / "page.html", found, samples=2)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("data:image/jpeg") == 2 * 2 + 4 + 2 + 2


def test_inputs_that_are_not_images_have_no_picture(tmp_path: Path) -> None:
    found = inspect_splits(arrays(np.random.default_rng(0).random((6, 7), np.float32)), decode=False)
    assert found.sizes == ()
    assert thumbnail(found.sources["train"], 0) is None
    write_page(tmp_path / "page.html", found, samples=1)
    assert "The inputs are not images." in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [-3.5, 0.0, 7.0])
def test_constant_float_image_has_a_picture(value: float) -> None:
    found = inspect_splits(arrays(np.full((4, 8, 8, 3), value, np.float32)), decode=False)
    assert thumbnail(found.sources["train"], 0) is not None


def test_samples_are_evenly_spaced_within_a_class() -> None:
    found = inspect_splits(arrays(np.random.default_rng(0).random((20, 7), np.float32)), decode=False)
    assert [one.position for one in spread_of(found.examples["train"], 1, 3)] == [1, 9, 19]
    assert len(spread_of(found.examples["train"], 1, 99)) == 10
    assert spread_of(found.examples["train"], 5, 3) == []
    assert size_summary([(1, 2), (30, 40), (5, 6)]) == "3 different sizes: 1 x 2 to 30 x 40 pixels, median 5 x 6"
