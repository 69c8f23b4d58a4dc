"""The predict command, from end to end."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from experiments.cli import tables

pytestmark = pytest.mark.slow

Door = Callable[..., str]


class FinishedRun(NamedTuple):
    run_id: str
    store: str
    photos: Path


@pytest.fixture
def predict(door: Door, finished_run: FinishedRun) -> Callable[..., str]:
    """Returns a function that predicts `path` with overrides and returns the output."""

    def call(path: Path | str, *overrides: str) -> str:
        return door("predict", f"path={path}", f"logging.tracking_uri={finished_run.store}", *overrides)

    return call


@pytest.fixture
def refusal(predict: Callable[..., str]) -> Callable[..., str]:
    """Returns a function that predicts `path` with overrides and returns the error message."""

    def call(path: Path | str, *overrides: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            predict(path, *overrides)
        return str(exit_info.value)

    return call


@pytest.fixture
def red_photo(finished_run: FinishedRun) -> Path:
    return finished_run.photos / "valid" / "red" / "00.png"


def test_image_prints_table(predict: Callable[..., str], red_photo: Path) -> None:
    heading, row = (line for line in predict(red_photo).splitlines() if line[:1] in "┃│")
    assert heading.replace("┃", " ").split() == ["path", "class", "probability"]
    path, name, probability = row.replace("│", " ").split()
    assert (path, name) == (str(red_photo), "red")
    assert 0.5 < float(probability) <= 1


def test_folder_prints_csv_sorted_by_path(predict: Callable[..., str], finished_run: FinishedRun) -> None:
    rows = list(csv.DictReader(io.StringIO(predict(finished_run.photos / "valid", "format=csv"))))
    assert [row["path"] for row in rows] == sorted(map(str, (finished_run.photos / "valid").rglob("*.png")))
    assert [row["class"] for row in rows] == [Path(row["path"]).parent.name for row in rows]


def test_json_has_probability_of_each_class(
    predict: Callable[..., str], finished_run: FinishedRun, red_photo: Path
) -> None:
    overrides = (f"run_id={finished_run.run_id}", "checkpoint=latest", "format=json")
    (row,) = json.loads(predict(red_photo, *overrides))
    assert list(row["probabilities"]) == ["blue", "green", "red"]
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["probability"] == row["probabilities"]["red"]


@pytest.mark.parametrize("name", ["großer röter Hund.JPG", "[bold] a, b = c.bmp", "still.gif"])
def test_unusual_file_names_and_formats_are_predicted(
    predict: Callable[..., str], red_photo: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    file = tmp_path_factory.mktemp("a folder") / name
    Image.open(red_photo).save(file)
    (row,) = json.loads(predict(file.parent, "format=json"))
    assert (row["path"], row["class"]) == (str(file), "red")
    assert str(file) in predict(file.parent)


def test_nonexistent_path_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal(Path("/nowhere/at/all")) == (
        "error: path=/nowhere/at/all does not exist: expected an image, a folder with images, a pattern, or a list of "
        "these. Set path."
    )


def test_folder_without_images_is_refused(
    refusal: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("empty")
    (folder / "notes.txt").touch()
    assert refusal(folder) == (
        f"error: path={folder} contains no image: expected files ending in .jpg, .jpeg, .png, .bmp, .gif, .webp. Set "
        "path."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "not a JPEG, PNG, BMP, GIF or WebP image"),
        (b"\xff\xd8\xff\xe0cut", "header of a JPEG that cannot be read"),
    ],
)
def test_corrupt_file_is_refused(
    refusal: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, content: bytes, reason: str
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "photo.jpg"
    file.write_bytes(content)
    assert refusal(file) == (
        f"error: {file} cannot be read: {reason}. Expected a complete JPEG, PNG, BMP, GIF or WebP image. Replace it."
    )


def test_files_are_read_as_in_training(
    predict: Callable[..., str],
    red_photo: Path,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TensorFlow reads the indices of a palette BMP as grey levels, and the upper 8 of 16 bits."""
    folder = tmp_path_factory.mktemp("kinds")
    picture = Image.open(red_photo).convert("RGB")
    picture.save(folder / "a.webp", save_all=True, append_images=[Image.new("RGB", picture.size)], lossless=True)
    picture.quantize(16).save(folder / "b.bmp")
    picture.save(folder / "c.bmp")
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(folder / "d.png")
    rows = json.loads(predict(folder, "format=json"))
    assert [row["error"] for row in rows] == [
        "a WebP with transparency or animation (others can be decoded)",
        "a BMP of 8 bits a pixel in mode P (grey, 24 and 32 bits can be decoded)",
        None,
        None,
    ]
    assert [row["class"] for row in rows[:3]] == [None, None, "red"]
    assert [record.getMessage() for record in caplog.records if "16 bits" in record.getMessage()] == [
        f"Only the upper 8 of 16 bits per channel are used in 1 image: {folder}/d.png. Convert 12-bit images to 8 bits"
    ]


def test_missing_file_of_a_list_has_a_row(predict: Callable[..., str], red_photo: Path) -> None:
    rows = json.loads(predict(f"[{red_photo},/nowhere/at/all.jpg]", "format=json"))
    assert [row["error"] for row in rows] == [None, "No such file or directory"]


def test_reason_is_complete_in_a_narrow_table(
    predict: Callable[..., str], red_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    monkeypatch.setattr(tables, "console", lambda: Console(width=80))
    lines = predict(f"[{red_photo},{tmp_path}/bad.jpg]").splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(line.split("│")[4].strip() for line in lines if line.startswith("│"))
    assert shown == "- not a JPEG, PNG, BMP, GIF or WebP image"


def test_empty_list_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("[]").startswith("error: path= does not exist")


def test_missing_path_key_is_refused(door: Door) -> None:
    with pytest.raises(SystemExit) as exit_info:
        door("predict")
    assert str(exit_info.value) == "error: path has no value: this option needs one. Add path=VALUE."


def test_unknown_run_is_refused(refusal: Callable[..., str], red_photo: Path) -> None:
    assert refusal(red_photo, "run_id=0123").startswith("error: run_id=0123 is not in sqlite:///")


@pytest.fixture(scope="session")
def stock_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest published network, with all 1000 classes."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None)
    file = tmp_path_factory.mktemp("stock") / "mobilenet.weights.h5"
    network.save_weights(file)
    return file


def test_corrupt_best_weights_are_refused(refusal: Callable[..., str], red_photo: Path, damaged_best: str) -> None:
    message = refusal(red_photo)
    assert "checkpoint=best of run" in message
    assert f"is corrupt: {damaged_best} has changed since it was written." in message


def test_stock_network_predicts_1000_classes(predict: Callable[..., str], red_photo: Path, stock_weights: Path) -> None:
    overrides = ("model=application", "model.architecture=MobileNetV2", "model.include_top=true", "model.alpha=0.35")
    (row,) = json.loads(
        predict(red_photo, *overrides, f"model.weights={stock_weights}", "image_size=[32,32]", "format=json")
    )
    assert len(row["probabilities"]) == 1000
    assert row["class"] == max(row["probabilities"], key=row["probabilities"].get)


def test_stock_network_without_head_is_refused(
    refusal: Callable[..., str], red_photo: Path, stock_weights: Path
) -> None:
    overrides = ("model=mobilenetv2", f"model.weights={stock_weights}", "model.alpha=0.35", "image_size=[32,32]")
    assert refusal(red_photo, *overrides) == (
        "error: model.include_top=false leaves a published network without its classes: expected true. "
        "Set model.include_top=true, or leave model out to predict with a run."
    )
