"""Drawn data sets: determined by their parameters, drawn once, and never over files of the user."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.trainings import Trainings

from experiments.data import Splits, cats_dogs_synthetic
from experiments.data.datasets.faces import draw_face
from experiments.data.datasets.synthetic import Drawing, ensure_drawn
from experiments.errors import DataError
from experiments.files import exclusive

DRAWING = Drawing(240, 64, 0)


def draw(root: Path, options: dict[str, Any], **changes: int) -> Splits:
    numbers: dict[str, Any] = {"num_examples": 60, "draw_size": 32, "draw_seed": 0, **changes}
    return cats_dogs_synthetic(str(root), **numbers, **options)


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.jpg")}


def test_drawn_data_set_has_three_splits_of_both_classes(tmp_path: Path, options: dict[str, Any]) -> None:
    splits = draw(tmp_path / "gemalt ü", options)
    assert splits.test is not None
    counts = [part.spec.class_counts for part in (splits.train, splits.validation, splits.test)]
    assert counts == [(25, 25), (3, 2), (3, 2)]
    with Image.open(tmp_path / "gemalt ü/train/cats/cat.00000.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")


def test_equal_parameters_draw_equal_files_once(tmp_path: Path, options: dict[str, Any]) -> None:
    draw(tmp_path / "a", options)
    draw(tmp_path / "b", options)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert len(set(first.values())) == 60
    before = (tmp_path / "a/drawing.json").stat().st_mtime_ns
    draw(tmp_path / "a", options)
    assert (tmp_path / "a/drawing.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"draw_seed": 1}, {"draw_size": 16}, {"num_examples": 72}])
def test_other_parameters_draw_again(tmp_path: Path, options: dict[str, Any], change: dict[str, int]) -> None:
    draw(tmp_path / "a", options)
    before = contents(tmp_path / "a")
    draw(tmp_path / "a", options, **change)
    assert contents(tmp_path / "a") != before
    assert len(contents(tmp_path / "a")) == change.get("num_examples", 60)


def test_existing_user_folder_is_not_overwritten(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"precious")
    with pytest.raises(DataError) as raised:
        draw(tmp_path / "mine", options)
    assert str(raised.value) == (
        f"data.path='{tmp_path / 'mine'}' exists and was not drawn by data=cats_dogs_synthetic, so it is not "
        "overwritten. Set data.path to another folder, or use data=image_folder for your own images."
    )
    assert (tmp_path / "mine/photo.jpg").read_bytes() == b"precious"


def test_leftovers_of_killed_drawing_are_replaced(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / ".a.partial/train").mkdir(parents=True)
    draw(tmp_path / "a", options)
    assert len(contents(tmp_path / "a")) == 60
    assert not (tmp_path / ".a.partial").exists()


def test_unwritable_folder_is_named(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be created: .* Set data\.path to a path in a writable folder\."):
        draw(tmp_path / "file" / "a", options)


def test_faces_differ_by_kind_and_seed() -> None:
    drawn = {
        (kind, seed): draw_face(kind, 64, np.random.default_rng(seed)).tobytes()
        for kind in ("cats", "dogs")
        for seed in (0, 1)
    }
    assert len(set(drawn.values())) == 4


def test_parallel_threads_share_one_drawing(tmp_path: Path, options: dict[str, Any]) -> None:
    made: list[int] = []
    together = [
        threading.Thread(target=lambda: made.append(draw(tmp_path / "a", options).train.spec.num_examples))
        for _ in range(3)
    ]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert made == [50, 50, 50]


def draw_together(root: str, go: str) -> None:
    """Draws as soon as the file `go` exists."""
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.002)
    with exclusive(Path(root)):
        ensure_drawn(Path(root), DRAWING)


@pytest.mark.slow
def test_parallel_processes_share_one_drawing(trainings: Trainings, tmp_path: Path) -> None:
    root, go = tmp_path / "together", tmp_path / "go"
    with trainings.calling(draw_together, str(root), str(go)) as other:
        other.wait_for("ready\n")
        go.touch()
        with exclusive(root):
            ensure_drawn(root, DRAWING)
        assert other.wait() == 0, other.stderr
    ensure_drawn(tmp_path / "alone", DRAWING)
    assert contents(root) == contents(tmp_path / "alone")
