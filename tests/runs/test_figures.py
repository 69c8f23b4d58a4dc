"""Figures of a run, drawn from small arrays."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli.safe_text import visible
from experiments.data import Splits, from_arrays
from experiments.data.base import Split
from experiments.loops.evaluation import Predictions
from experiments.runs import figures

HISTORY = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.7], "val_loss": [1.1, 0.8], "learning_rate": [0.1, 0.01]}
LABELS = np.array([0, 1, 2, 0, 1])
LOGITS = np.array([[5.0, 0, 0], [4, 0, 0], [0, 0, 5], [0, 1, 0], [0, 3, 0]], np.float32)
"""Correct, very wrong, correct, slightly wrong, correct."""


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Lets errors through."""
    assert name in ("curves", "classes", "predictions", "per_class", "confusion_matrix", "binary", "most_wrong")
    yield


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(LABELS, figures.probabilities(LOGITS))


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Splits with validation images of a single shade: 10 times their position."""
    x = np.repeat(np.arange(5, dtype=np.uint8) * 10, 12).reshape(5, 4, 3, 1)
    return from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0, class_names=["a", "b", "c"])


@pytest.mark.parametrize("channels", [1, 3])
def test_all_figures_are_written(tmp_path: Path, predictions: Predictions, channels: int) -> None:
    x = np.zeros((5, 4, 3, channels), np.uint8)
    validation = from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0).validation
    figures.draw(tmp_path / "figures", attempt, history=HISTORY, best=1, predictions=predictions, validation=validation)
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["confusion_matrix.png", "curves.png", "most_wrong.png", "per_class.csv", "predictions.csv"]
    for path in (tmp_path / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors() or []) != 1  # not blank


def test_no_gallery_for_data_without_images(tmp_path: Path, predictions: Predictions) -> None:
    x = np.zeros((5, 4), np.float32)
    validation = from_arrays((x, LABELS), (x, LABELS), batch_size=2, shuffle=True, seed=0).validation
    figures.draw(tmp_path, attempt, history=HISTORY, best=1, predictions=predictions, validation=validation)
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
    figures.draw(tmp_path, attempt, history=HISTORY, best=1, predictions=other, validation=splits.validation)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_show_training_beside_validation_and_the_best_epoch() -> None:
    panels = {axes.get_title(): axes for axes in figures.curves(HISTORY, best=1).axes}
    assert list(panels) == ["loss", "accuracy", "learning_rate"]
    lines = {line.get_label(): line for line in panels["loss"].lines}
    assert set(lines) == {"training", "validation", "best epoch (2)"}
    assert [line.get_xdata() for axes in panels.values() for line in axes.lines if line.get_linestyle() == "--"] == [
        [2, 2]
    ] * 3
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
    for each in (split, UserDefinedSplit(split)):
        found = figures.examples(each, np.array(chosen))
        assert [(index, float(value[0])) for index, value in found.items()] == [(index, index) for index in chosen]


class UserDefinedSplit:
    """A split without a source."""

    def __init__(self, split: Split) -> None:
        self.spec, self.batch_size, self.steps_per_epoch = split.spec, split.batch_size, split.steps_per_epoch
        self.epoch = split.epoch


def test_gallery_shows_classes_and_files(splits: Splits, predictions: Predictions) -> None:
    images = figures.examples(splits.validation, np.array([3, 1]))
    (axes,) = figures.gallery(images, predictions, ["a", "b", "c"], ["3.png", "1.png"], "DejaVu Sans").axes
    assert [text.get_text() for text in axes.texts] == ["a\nb (0.58)", "3.png", "b\na (0.96)", "1.png"]
    assert [int(np.asarray(image.get_array()).max()) for image in axes.images] == [30, 10]


def test_gallery_without_misclassified_images() -> None:
    right = Predictions(LABELS, np.eye(3, dtype=np.float32)[LABELS])
    assert not len(figures.most_wrong(right, 16))
    figure = figures.gallery({}, right, ["a", "b", "c"], [], "DejaVu Sans")
    assert figure.get_suptitle() == "no validation image is misclassified"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_list_predictions_and_scores_of_classes(tmp_path: Path) -> None:
    """The expected scores are computed by counting."""
    rng = np.random.default_rng(0)
    names = ["=1+1", "b\x1b[2J", "never predicted", "absent"]
    labels, outputs = rng.integers(0, 3, 200), rng.normal(size=(200, 4)).astype(np.float32)
    outputs[:, 2:] -= 100
    pair = np.zeros((200, 2), np.float32), labels
    split = from_arrays(pair, pair, batch_size=64, shuffle=False, seed=0, class_names=names).validation
    for each, example in ((split, "validation[{}]"), (UserDefinedSplit(split), "{}")):
        figures.draw_classes(tmp_path, attempt, Predictions(labels, figures.probabilities(outputs)), each)
        shown, guesses = ["'=1+1", "b\\x1b[2J", *names[2:]], outputs.argmax(axis=1)
        softmax = np.exp(outputs.astype(float)) / np.exp(outputs.astype(float)).sum(axis=1, keepdims=True)
        rows = table(tmp_path / "predictions.csv")
        assert [float(row.pop("probability")) for row in rows] == pytest.approx(softmax.max(axis=1), abs=2e-6)
        assert rows == [
            {"example": example.format(row), "true_class": shown[label], "predicted_class": shown[guess]}
            for row, (label, guess) in enumerate(zip(labels, guesses, strict=True))
        ]
    rows = table(tmp_path / "per_class.csv")
    assert [row["class"] for row in rows] == shown
    for number, row in enumerate(rows):
        true, guessed = labels == number, guesses == number
        hits = int((true & guessed).sum())
        expected = [
            hits / guessed.sum() if guessed.any() else np.nan,
            hits / true.sum() if true.any() else np.nan,
            2 * hits / (true.sum() + guessed.sum()) if (true | guessed).any() else np.nan,
        ]
        assert [float(row[name]) for name in ("precision", "recall", "f1")] == pytest.approx(
            expected, abs=1e-6, nan_ok=True
        )
        assert int(row["support"]) == true.sum()


def test_two_classes_have_three_curves() -> None:
    """The expected points are computed by counting."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    outputs = np.stack([np.zeros(300), rng.normal(size=300) + labels], axis=1).astype(np.float32)
    scores = 1 / (1 + np.exp(-outputs[:, 1]))
    figure = figures.binary(Predictions(labels, figures.probabilities(outputs)), "dog")
    assert figure.get_suptitle() == "label 1: dog"
    (precision_recall, *_), (roc, *_), (_, calibration, *_) = (axes.lines for axes in figure.axes)
    for x, y in np.asarray(precision_recall.get_xydata()):
        hits = [(labels[scores >= bound].sum(), (scores >= bound).sum()) for bound in scores]
        assert (x, y) == (0, 1) or any(np.allclose((x, y), (hit / labels.sum(), hit / all_)) for hit, all_ in hits)
    concordant = (scores[labels == 1][:, None] > scores[labels == 0][None]).mean()
    assert np.trapezoid(*np.asarray(roc.get_xydata()).T[::-1]) == pytest.approx(concordant)
    bins = np.minimum((scores * 10).astype(int), 9)
    points = [(scores[bins == number].mean(), labels[bins == number].mean()) for number in np.unique(bins)]
    np.testing.assert_allclose(np.asarray(calibration.get_xydata()), points, rtol=1e-5)


def test_hostile_file_names_are_drawn_as_text(tmp_path: Path) -> None:
    names = ["$x$_$y.png", "猫\x1b[2J.png", "é" * 300, "\udcff.png", "-", ""]
    images = {number: np.zeros((4, 4, 3), np.uint8) for number in range(6)}
    predictions = Predictions(np.zeros(6, np.int64), np.eye(2, dtype=np.float32)[np.ones(6, int)])
    for name in names:
        drawn = figures.drawable([visible(name)] * 6, "file")
        figure = figures.gallery(images, predictions, ["x", "y"], *drawn)
        figure.savefig(tmp_path / "gallery.png")
        assert [text.get_text() for text in figure.axes[0].texts[1::2]] == drawn[0]
