"""Names the class of images, through the real command."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

Door = Callable[..., str]


class FinishedRun(NamedTuple):
    run_id: str
    store: str
    photos: Path


@pytest.fixture
def predict(door: Door, finished_run: FinishedRun) -> Callable[..., str]:
    """What predicting `path` with these words prints."""

    def call(path: Path, *words: str) -> str:
        return door("predict", f"path={path}", f"logging.tracking_uri={finished_run.store}", *words)

    return call


@pytest.fixture
def refusal(predict: Callable[..., str]) -> Callable[..., str]:
    """The one line that predicting with these words ends with."""

    def call(path: Path, *words: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            predict(path, *words)
        return str(exit_info.value)

    return call


@pytest.fixture
def red_photo(finished_run: FinishedRun) -> Path:
    return finished_run.photos / "valid" / "red" / "00.png"


def test_an_image_as_a_table(predict: Callable[..., str], red_photo: Path) -> None:
    heading, row = (line for line in predict(red_photo).splitlines() if line[:1] in "┃│")
    assert heading.replace("┃", " ").split() == ["path", "class", "probability"]
    path, name, probability = row.replace("│", " ").split()
    assert (path, name) == (str(red_photo), "red")
    assert 0.5 < float(probability) <= 1


def test_a_folder_as_csv_in_order_of_name(predict: Callable[..., str], finished_run: FinishedRun) -> None:
    rows = list(csv.DictReader(io.StringIO(predict(finished_run.photos / "valid", "format=csv"))))
    assert [row["path"] for row in rows] == sorted(map(str, (finished_run.photos / "valid").rglob("*.png")))
    assert [row["class"] for row in rows] == [Path(row["path"]).parent.name for row in rows]


def test_json_has_the_probability_of_every_class(
    predict: Callable[..., str], finished_run: FinishedRun, red_photo: Path
) -> None:
    words = (f"run_id={finished_run.run_id}", "checkpoint=latest", "format=json")
    (row,) = json.loads(predict(red_photo, *words))
    assert list(row["probabilities"]) == ["blue", "green", "red"]
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["probability"] == row["probabilities"]["red"]


@pytest.mark.parametrize("name", ["großer röter Hund.JPG", "[bold] a, b = c.bmp", "still.gif"])
def test_any_file_name_and_kind(
    predict: Callable[..., str], red_photo: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    file = tmp_path_factory.mktemp("a folder") / name
    Image.open(red_photo).save(file)
    (row,) = json.loads(predict(file.parent, "format=json"))
    assert (row["path"], row["class"]) == (str(file), "red")
    assert str(file) in predict(file.parent)


def test_no_such_path(refusal: Callable[..., str]) -> None:
    assert refusal(Path("/nowhere/at/all")) == (
        "error: path=/nowhere/at/all does not exist: expected an image or a folder with images. "
        "Set path=FILE_OR_FOLDER."
    )


def test_a_folder_without_images(refusal: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("empty")
    (folder / "notes.txt").touch()
    assert refusal(folder) == (
        f"error: path={folder} holds no image: expected files ending in .jpg, .jpeg, .png, .bmp, .gif. Set path."
    )


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0cut"])
def test_a_damaged_file_is_named(
    refusal: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "photo.jpg"
    file.write_bytes(content)
    assert refusal(file) == (
        f"error: {file} cannot be decoded: expected a whole JPEG, PNG, BMP or GIF image. Replace or remove it."
    )


def test_an_image_must_be_named(door: Door) -> None:
    with pytest.raises(SystemExit) as exit_info:
        door("predict")
    assert str(exit_info.value) == "error: path has no value: this option needs one. Add path=VALUE."


def test_unknown_run(refusal: Callable[..., str], red_photo: Path) -> None:
    assert refusal(red_photo, "run_id=0123").startswith("error: run_id=0123 is not in sqlite:///")


@pytest.fixture(scope="session")
def stock_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the smallest published shape with all 1000 classes, random."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None)
    file = tmp_path_factory.mktemp("stock") / "mobilenet.weights.h5"
    network.save_weights(file)
    return file


def test_damaged_best_weights(refusal: Callable[..., str], red_photo: Path, damaged_best: str) -> None:
    said = refusal(red_photo)
    assert "checkpoint=best of run" in said
    assert f"is damaged: {damaged_best} is not what was written." in said


def test_a_stock_network_has_its_1000_classes(
    predict: Callable[..., str], red_photo: Path, stock_weights: Path
) -> None:
    words = ("model=application", "model.architecture=MobileNetV2", "model.include_top=true", "model.alpha=0.35")
    (row,) = json.loads(
        predict(red_photo, *words, f"model.weights={stock_weights}", "image_size=[32,32]", "format=json")
    )
    assert len(row["probabilities"]) == 1000
    assert row["class"] == max(row["probabilities"], key=row["probabilities"].get)


def test_a_stock_network_without_its_head_is_refused(
    refusal: Callable[..., str], red_photo: Path, stock_weights: Path
) -> None:
    words = ("model=mobilenetv2", f"model.weights={stock_weights}", "model.alpha=0.35", "image_size=[32,32]")
    assert refusal(red_photo, *words) == (
        "error: model.include_top=false leaves a stock network without its classes: expected true. "
        "Set model.include_top=true, or leave model out to predict with a run."
    )
