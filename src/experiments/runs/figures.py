"""Draws figures of a finished run into its `figures/` folder."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from experiments.data.base import Split
from experiments.errors import DataError
from experiments.loops.base import History
from experiments.loops.evaluation import Predictions

MOST_WRONG = 16
COUNTED_CLASSES = 30
"""Largest number of classes with readable numbers in the confusion matrix."""
NAMED_CLASSES = 60
DRAWN_CLASSES = 1000  # a matrix of 100,000 classes needs 75 GiB
LONGEST_NAME = 24
COLUMNS = 3
SHORT_GAP = 4
WIDTH, HEADING = 10.0, 0.6
"""Width of a gallery and height of its heading, in inches."""
Attempt = Callable[[str], AbstractContextManager[None]]


def draw(directory: Path, attempt: Attempt, *, history: History, predictions: Predictions, validation: Split) -> None:
    """Draws curves, confusion matrix and misclassified images of the validation split, each in `attempt(name)`."""
    directory.mkdir(exist_ok=True)
    with attempt("curves"):
        curves(history).savefig(directory / "curves.png")
    if predictions.outputs.ndim != 2 or predictions.labels.ndim != 1 or predictions.labels.dtype.kind not in "iu":
        return  # not one integer label and one row of outputs for each example
    names, font = _drawable(validation.spec.class_names)
    with attempt("confusion_matrix"), rc_context({"font.family": font}):
        confusion(predictions, names).savefig(directory / "confusion_matrix.png")
    if len(validation.spec.input_shape) != 3:
        return
    with attempt("most_wrong"), rc_context({"font.family": font}):
        wrong = most_wrong(predictions, MOST_WRONG)
        # The lowest compression level saves CPU time at the end of each run.
        figure = gallery(examples(validation, wrong), predictions, wrong, names)
        figure.savefig(directory / "most_wrong.png", pil_kwargs={"compress_level": 1})


def _drawable(names: Sequence[str]) -> tuple[list[str], str]:
    """Returns class names and an installed font that has their characters. If there is none, the names are numbers."""
    needed = set(map(ord, "".join(names)))
    for font in sorted(fontManager.ttflist, key=lambda font: font.name != "DejaVu Sans"):
        if needed <= get_font(font.fname).get_charmap().keys():
            # Matplotlib reads text between two dollar signs as a formula.
            return [name.replace("$", r"\$") for name in names], font.name
    return [f"class {number}" for number in range(len(names))], "DejaVu Sans"


def curves(history: History) -> Figure:
    """Draws one panel per metric with its training and validation curves."""
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
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


def confusion(predictions: Predictions, class_names: Sequence[str]) -> Figure:
    """Draws true classes as rows and predicted ones as columns. Numbers are left out if there are too many classes."""
    count, outputs = len(class_names), predictions.outputs.shape[1]
    if outputs != count or count > DRAWN_CLASSES:
        raise DataError(f"outputs: {outputs:,} for {count:,} classes, expected as many, at most {DRAWN_CLASSES:,}")
    side = max(4.0, 0.5 * min(count, COUNTED_CLASSES))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    counts = confusion_matrix(predictions.labels, predictions.outputs.argmax(axis=1), labels=np.arange(count))
    names = [_short(name) for name in class_names] if count <= NAMED_CLASSES else None
    display = ConfusionMatrixDisplay(counts, display_labels=names)
    display.plot(
        ax=figure.subplots(), include_values=count <= COUNTED_CLASSES, cmap="Blues", xticks_rotation="vertical"
    )
    return figure


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis of logits."""
    shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    softmax: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def most_wrong(predictions: Predictions, count: int) -> np.ndarray:
    """Returns indices of up to `count` misclassified examples, sorted by rising probability of the true class."""
    true_probability = probabilities(predictions.outputs)[np.arange(len(predictions.labels)), predictions.labels]
    order = np.argsort(true_probability, kind="stable")
    wrong: np.ndarray = predictions.outputs.argmax(axis=1) != predictions.labels
    worst: np.ndarray = order[wrong[order]][:count]
    return worst


def examples(split: Split, indices: np.ndarray) -> Mapping[int, np.ndarray]:
    """Returns the inputs at `indices` of an unshuffled split. Reads only their batches and short gaps between these."""
    found: dict[int, np.ndarray] = {}
    for first, count in _step_ranges(np.unique(indices // split.batch_size)):
        for step, (inputs, *_) in enumerate(split.epoch(0, first_step=first).take(count), first):
            for index in indices[indices // split.batch_size == step]:
                found[int(index)] = inputs[index % split.batch_size].numpy()
    return found


def _step_ranges(steps: np.ndarray) -> list[tuple[int, int]]:
    """Returns step ranges as (first, count). Short gaps are included: a new start takes as long as a few batches."""
    parts = np.split(steps, np.flatnonzero(np.diff(steps) > SHORT_GAP) + 1)
    return [(int(part[0]), int(part[-1] - part[0]) + 1) for part in parts if len(part)]


def gallery(
    images: Mapping[int, np.ndarray], predictions: Predictions, indices: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draws the images of `indices` in a grid, titled by true class, predicted class and its probability."""
    columns, titles = 4, 0.2  # `titles` is the height of the two title lines, relative to an image's width
    shape = images[int(indices[0])].shape if len(indices) else (1, 1)
    cell = shape[0] / shape[1] + titles
    rows = max(1, -(-len(indices) // columns))
    height = WIDTH / columns * rows * cell + HEADING
    figure = Figure(figsize=(WIDTH, height))
    heading = "true class\npredicted class (its probability)"
    figure.suptitle(heading if len(indices) else "no validation image is misclassified", y=1 - 0.1 / height)
    # All images share one panel: a panel per image takes twice as long to draw.
    axes = figure.add_axes((0, 0, 1, 1 - HEADING / height))
    softmax = probabilities(predictions.outputs)
    for place, index in enumerate(indices):
        row, left = place // columns, place % columns
        top, bottom = row * cell + titles, (row + 1) * cell
        image = images[int(index)]
        if image.dtype != np.uint8 and not 0 <= image.min() <= image.max() <= 1:  # Matplotlib would cut values off
            image = (image - image.min()) / max(float(np.ptp(image)), 1e-9)
        axes.imshow(image, cmap="gray", extent=(left + 0.02, left + 0.98, bottom, top))
        guess = int(softmax[index].argmax())
        truth, taken = _short(class_names[predictions.labels[index]]), _short(class_names[guess])
        title = f"{truth}\n{taken} ({softmax[index][guess]:.2f})"
        axes.text(left + 0.5, top - 0.02, title, ha="center", va="bottom")
    axes.set(xlim=(0, columns), ylim=(rows * cell, 0), aspect="auto")
    axes.axis("off")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
