"""Figures of a run, drawn from small arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import Splits, from_arrays
from experiments.loops.evaluation import Predictions
from experiments.runs import figures

HISTORY = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.7], "val_loss": [1.1, 0.8], "learning_rate": [0.1, 0.01]}
LABELS = np.array([0, 1, 2, 0, 1])
LOGITS = np.array([[5.0, 0, 0], [4, 0, 0], [0, 0, 5], [0, 1, 0], [0, 3, 0]], np.float32)
"""Correct, very wrong, correct, slightly wrong, correct."""


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Lets errors through."""
    assert name in ("curves", "confusion_matrix", "most_wrong")
    yield


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(LABELS, LOGITS)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Splits with validation images of a single shade: 10 times their position."""
    x = np.repeat(np.arange(5, dtype=np.uint8) * 10, 12).reshape(5, 4, 3, 1)
    return from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0, class_names=["a", "b", "c"])


@pytest.mark.parametrize("channels", [1, 3])
def test_all_figures_are_written(tmp_path: Path, predictions: Predictions, channels: int) -> None:
    x = np.zeros((5, 4, 3, channels), np.uint8)
    validation = from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0).validation
    figures.draw(tmp_path / "figures", attempt, history=HISTORY, predictions=predictions, validation=validation)
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["confusion_matrix.png", "curves.png", "most_wrong.png"]
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors() or []) != 1  # not blank


def test_no_gallery_for_data_without_images(tmp_path: Path, predictions: Predictions) -> None:
    x = np.zeros((5, 4), np.float32)
    validation = from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0).validation
    figures.draw(tmp_path, attempt, history=HISTORY, predictions=predictions, validation=validation)
    assert not (tmp_path / "most_wrong.png").exists()


@pytest.mark.parametrize(
    "other",
    [
        Predictions(np.array([0.5, 1.5]), np.zeros((2, 1), np.float32)),
        Predictions(np.zeros((2, 4, 4), np.int64), np.zeros((2, 4, 4, 3), np.float32)),
    ],
    ids=["regression", "segmentation"],
)
def test_other_tasks_have_only_curves(tmp_path: Path, splits: Splits, other: Predictions) -> None:
    figures.draw(tmp_path, attempt, history=HISTORY, predictions=other, validation=splits.validation)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_show_training_beside_validation() -> None:
    panels = {axes.get_title(): axes for axes in figures.curves(HISTORY).axes}
    assert list(panels) == ["loss", "accuracy", "learning_rate"]
    lines = {line.get_label(): line for line in panels["loss"].lines}
    assert set(lines) == {"training", "validation"}
    np.testing.assert_array_equal(lines["validation"].get_xydata(), [[1, 1.1], [2, 0.8]])


def test_confusion_matrix_counts_examples(predictions: Predictions) -> None:
    axes = figures.confusion(predictions, ["a", "b", "c"]).axes[0]
    counts = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(axes.images[0].get_array(), counts)
    assert [text.get_text() for text in axes.texts] == [str(count) for row in counts for count in row]


def test_confusion_matrix_of_many_classes_has_no_numbers() -> None:
    labels = np.arange(100)
    axes = figures.confusion(Predictions(labels, np.eye(100, dtype=np.float32)), [str(name) for name in labels]).axes[0]
    assert not axes.texts


def test_most_wrong_are_sorted_by_probability_of_true_class(predictions: Predictions) -> None:
    np.testing.assert_array_equal(figures.most_wrong(predictions, 16), [1, 3])
    np.testing.assert_array_equal(figures.most_wrong(predictions, 1), [1])


def test_probabilities_of_large_logits_are_finite() -> None:
    outputs = np.array([[1000.0, 1000.0], [-1000.0, 0.0]])
    np.testing.assert_allclose(figures.probabilities(outputs), [[0.5, 0.5], [0.0, 1.0]])


def test_examples_returns_inputs_at_indices(splits: Splits) -> None:
    found = figures.examples(splits.validation, np.array([4, 1]))
    assert {index: int(image.max()) for index, image in found.items()} == {1: 10, 4: 40}


@pytest.mark.parametrize("chosen", [[199, 0, 16, 30, 31, 46, 100, 1], [7], [198, 199, 185]])
def test_examples_returns_inputs_across_gaps(chosen: list[int]) -> None:
    values = np.arange(200, dtype=np.float32)[:, None]
    pair = (values, np.arange(200) % 2)
    split = from_arrays(pair, pair, batch_size=3, shuffle=False, seed=0).validation
    found = figures.examples(split, np.array(chosen))
    assert {index: float(value[0]) for index, value in found.items()} == {index: float(index) for index in chosen}


def test_gallery_shows_true_and_predicted_classes(splits: Splits, predictions: Predictions) -> None:
    wrong = np.array([1, 3])
    (axes,) = figures.gallery(figures.examples(splits.validation, wrong), predictions, wrong, ["a", "b", "c"]).axes
    assert [text.get_text() for text in axes.texts] == ["b\na (0.96)", "a\nb (0.58)"]
    assert [int(np.asarray(image.get_array()).max()) for image in axes.images] == [10, 30]


def test_gallery_without_misclassified_images(splits: Splits) -> None:
    right = Predictions(LABELS, np.eye(3, dtype=np.float32)[LABELS])
    figure = figures.gallery({}, right, figures.most_wrong(right, 16), ["a", "b", "c"])
    assert figure.get_suptitle() == "no validation image is misclassified"
