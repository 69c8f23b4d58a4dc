"""Draws figures of a finished run into its `figures/` folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import MaxNLocator
from sklearn import metrics
from sklearn.calibration import CalibrationDisplay

from experiments.cli.safe_text import visible
from experiments.cli.tables import Row, write_csv
from experiments.data.base import DataSpec, Split
from experiments.data.pipeline import IndexedSplit
from experiments.errors import DataError
from experiments.loops.base import History
from experiments.loops.evaluation import Predictions

MOST_WRONG = 16
MOST_ROWS = 1_000_000
COUNTED_CLASSES = 30
"""Largest number of classes with readable numbers in the confusion matrix."""
NAMED_CLASSES = 60
DRAWN_CLASSES = 1000  # a matrix of 100,000 classes needs 75 GiB
LONGEST_NAME = 24
COLUMNS = 3
WIDTH, HEADING = 10.0, 0.8
"""Width of a gallery and height of its heading, in inches."""
Attempt = Callable[[str], AbstractContextManager[None]]


def draw(
    directory: Path, attempt: Attempt, *, history: History, best: int, predictions: Predictions, validation: Split
) -> None:
    """Draws curves and the predictions for the validation split, each in `attempt(name)`. `best` is an epoch from 0.

    The outputs of `predictions` are probabilities, as `probabilities` computes them of logits, or one for each example.
    """
    directory.mkdir(exist_ok=True)
    with attempt("curves"):
        curves(history, best).savefig(directory / "curves.png")
    if predictions.outputs.ndim != 2 or predictions.labels.ndim != 1 or predictions.labels.dtype.kind not in "iu":
        return  # not one integer label and one row of outputs for each example
    with attempt("classes"):
        outputs, count = predictions.outputs.shape[1], validation.spec.num_classes
        if outputs != count:
            raise DataError(f"outputs: {outputs:,} for {count:,} classes, expected as many")
        draw_classes(directory, attempt, predictions, validation)


def draw_classes(directory: Path, attempt: Attempt, predictions: Predictions, validation: Split) -> None:
    """Writes tables and draws figures of a classifier with an output for each class."""
    spec = validation.spec
    files = validation.source.names if isinstance(validation, IndexedSplit) else range(spec.num_examples)
    with attempt("predictions"), (directory / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        write_csv(prediction_rows(predictions, spec, files), file)
    with attempt("per_class"), (directory / "per_class.csv").open("w", newline="", encoding="utf-8") as file:
        write_csv(class_rows(predictions, spec.class_names), file)
    names, font = drawable(spec.class_names, "class")
    with rc_context({"font.family": font}):
        with attempt("confusion_matrix"):
            confusion(predictions, names).savefig(directory / "confusion_matrix.png")
        if spec.num_classes == 2 == len(np.unique(predictions.labels)):
            with attempt("binary"):
                binary(predictions, names[1]).savefig(directory / "binary.png")
        if len(spec.input_shape) == 3:
            with attempt("most_wrong"):
                wrong = most_wrong(predictions, MOST_WRONG)
                ends = [visible(str(files[index])).rpartition("/")[2][-LONGEST_NAME:] for index in wrong]
                figure = gallery(examples(validation, wrong), predictions, names, *drawable(ends, "file"))
                # The lowest compression level saves CPU time at the end of each run.
                figure.savefig(directory / "most_wrong.png", pil_kwargs={"compress_level": 1})


def drawable(names: Sequence[str], kind: str) -> tuple[list[str], str]:
    """Returns the names and an installed font with more than boxes for them; `kind` and numbers if there is none."""
    needed = set(map(ord, "".join(names)))
    for font in sorted(fontManager.ttflist, key=lambda font: font.name != "DejaVu Sans"):
        if "Last Resort" not in font.name and needed <= get_font(font.fname).get_charmap().keys():
            # Matplotlib reads text between two dollar signs as a formula.
            return [name.replace("$", r"\$") for name in names], font.name
    return [f"{kind} {number}" for number in range(len(names))], "DejaVu Sans"


def curves(history: History, best: int) -> Figure:
    """Draws one panel per metric with its training and validation curves, and a line at the epoch `best`, from 0."""
    names = [name for name in history if not name.startswith("val_")]
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(panels)[len(names) :]:
        axes.axis("off")
    for axes, name in zip(figure.axes, names, strict=False):
        for series, label in ((name, "training"), (f"val_{name}", "validation")):
            if series in history:
                axes.plot(range(1, len(history[series]) + 1), history[series], marker="o", label=label)
        axes.axvline(best + 1, color="gray", linestyle="--", label=f"best epoch ({best + 1})", zorder=0)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


def prediction_rows(predictions: Predictions, spec: DataSpec, examples: Sequence[object]) -> Iterator[Row]:
    """Yields true class, predicted class and its probability for the first `MOST_ROWS` of the named examples."""
    outputs = predictions.outputs[:MOST_ROWS]
    rows = zip(examples, predictions.labels, outputs.argmax(axis=1), outputs.max(axis=1), strict=False)
    for example, label, guess, probability in rows:
        classes = {"true_class": spec.class_names[label], "predicted_class": spec.class_names[guess]}
        yield {"example": str(example), **classes, "probability": round(float(probability), 6)}


def class_rows(predictions: Predictions, class_names: Sequence[str]) -> Iterator[Row]:
    """Yields precision, recall, F1 and the number of examples of each class; NaN if undefined."""
    numbers, guesses = np.arange(len(class_names)), predictions.outputs.argmax(axis=1)
    columns = metrics.precision_recall_fscore_support(predictions.labels, guesses, labels=numbers, zero_division=np.nan)
    for name, (precision, recall, f1, support) in zip(class_names, np.round(columns, 6).T, strict=True):
        yield {"class": name, "precision": precision, "recall": recall, "f1": f1, "support": int(support)}


def binary(predictions: Predictions, positive: str) -> Figure:
    """Draws precision over recall, ROC and calibration of the second of two classes, named `positive`."""
    truth, scores = predictions.labels == 1, predictions.outputs[:, 1]
    figure = Figure(figsize=(15, 5), layout="constrained")
    figure.suptitle(f"label 1: {positive}")
    left, middle, right = figure.subplots(1, 3)
    metrics.PrecisionRecallDisplay.from_predictions(truth, scores, ax=left, name="model", drop_intermediate=True)
    metrics.RocCurveDisplay.from_predictions(truth, scores, ax=middle, name="model", plot_chance_level=True)
    CalibrationDisplay.from_predictions(truth, scores, ax=right, name="model", n_bins=10)
    return figure


def confusion(predictions: Predictions, class_names: Sequence[str]) -> Figure:
    """Draws true classes as rows and predicted ones as columns. Numbers are left out if there are too many classes."""
    if (count := len(class_names)) > DRAWN_CLASSES:
        raise DataError(f"{count:,} classes, expected at most {DRAWN_CLASSES:,}")
    side = max(4.0, 0.5 * min(count, COUNTED_CLASSES))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    counts = metrics.confusion_matrix(predictions.labels, predictions.outputs.argmax(axis=1), labels=np.arange(count))
    names = [_short(name) for name in class_names] if count <= NAMED_CLASSES else None
    display = metrics.ConfusionMatrixDisplay(counts, display_labels=names)
    display.plot(ax=figure.subplots(), include_values=count <= COUNTED_CLASSES, cmap="Blues", xticks_rotation=90)
    if names is None:  # drawing the ticks of 1,000 classes takes 5 s
        display.ax_.set(xticks=[], yticks=[])
    return figure


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis of logits."""
    shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    softmax: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def most_wrong(predictions: Predictions, count: int) -> np.ndarray:
    """Returns indices of up to `count` misclassified examples, sorted by rising probability of the true class."""
    true_probability = predictions.outputs[np.arange(len(predictions.labels)), predictions.labels]
    order = np.argsort(true_probability, kind="stable")
    worst: np.ndarray = order[predictions.outputs.argmax(axis=1)[order] != predictions.labels[order]][:count]
    return worst


def examples(split: Split, indices: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the inputs at `indices` of an unshuffled split. For a user-defined split, reads their batches."""
    if isinstance(split, IndexedSplit):
        return {int(i): x[0].numpy() for i, x in zip(indices, split.source.batches(indices, 1, 1), strict=True)}
    n = split.batch_size
    return {int(i): next(iter(split.epoch(0, first_step=i // n).take(1)))[0][i % n].numpy() for i in indices}


def gallery(
    images: Mapping[int, np.ndarray], predictions: Predictions, names: Sequence[str], files: Sequence[str], font: str
) -> Figure:
    """Draws images by index in a grid, titled by true class, predicted class, its probability and file."""
    columns, titles = 4, 0.27  # `titles` is the height of the three title lines, relative to an image's width
    shape = next((image.shape for image in images.values()), (1, 1))
    cell = shape[0] / shape[1] + titles
    rows = max(1, -(-len(images) // columns))
    height = WIDTH / columns * rows * cell + HEADING
    figure = Figure(figsize=(WIDTH, height))
    heading = "true class\npredicted class (its probability)\nfile or index"
    figure.suptitle(heading if images else "no validation image is misclassified", y=1 - 0.1 / height)
    # All images share one panel: a panel per image takes twice as long to draw.
    axes = figure.add_axes((0, 0, 1, 1 - HEADING / height))
    for place, (index, image) in enumerate(images.items()):
        row, left = place // columns, place % columns
        top, bottom = row * cell + titles, (row + 1) * cell
        if image.dtype != np.uint8 and not 0 <= image.min() <= image.max() <= 1:  # Matplotlib would cut values off
            image = (image - image.min()) / max(float(np.ptp(image)), 1e-9)
        axes.imshow(image, cmap="gray", extent=(left + 0.02, left + 0.98, bottom, top))
        outputs = predictions.outputs[index]
        guess = int(outputs.argmax())
        truth, taken = _short(names[predictions.labels[index]]), _short(names[guess])
        title = f"{truth}\n{taken} ({outputs[guess]:.2f})"
        axes.text(left + 0.5, top - 0.09, title, ha="center", va="bottom")
        axes.text(left + 0.5, top - 0.02, files[place], ha="center", va="bottom", family=font, size="small")
    axes.set(xlim=(0, columns), ylim=(rows * cell, 0), aspect="auto")
    axes.axis("off")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
