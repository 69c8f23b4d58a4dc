"""Pictures of a finished run, written to its `figures/` folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from experiments.data.base import Split
from experiments.loops.base import History
from experiments.loops.evaluation import Predictions

MOST_WRONG = 16
COUNTED_CLASSES = 30
"""With more, the numbers in a confusion matrix could not be read."""
NAMED_CLASSES = 60
LONGEST_NAME = 24
COLUMNS = 3
SHORT_GAP = 4
WIDTH, HEADING = 10.0, 0.6
"""Of a gallery, in inches."""


def draw(directory: Path, *, history: History, predictions: Predictions, validation: Split) -> None:
    """Curves, the confusion matrix and the most wrong images of the validation split, as PNG files."""
    directory.mkdir(exist_ok=True)
    curves(history).savefig(directory / "curves.png")
    if not _is_classification(predictions):
        return
    names = validation.spec.class_names
    confusion(predictions, names).savefig(directory / "confusion_matrix.png")
    if len(validation.spec.input_shape) == 3:
        wrong = most_wrong(predictions, MOST_WRONG)
        gallery(examples(validation, wrong), predictions, wrong, names).savefig(
            directory / "most_wrong.png", pil_kwargs={"compress_level": 1}
        )


def _is_classification(predictions: Predictions) -> bool:
    """One integer label and one logit per class for each example."""
    return (
        predictions.outputs.ndim == 2
        and predictions.labels.ndim == 1
        and np.issubdtype(predictions.labels.dtype, np.integer)
    )


def curves(history: History) -> Figure:
    """One panel per metric, training beside validation."""
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
    """True classes down, predicted ones across, in examples; numbers only while they can be read."""
    count = len(class_names)
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
    """Softmax over the last axis of logits."""
    shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    softmax: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def most_wrong(predictions: Predictions, count: int) -> np.ndarray:
    """Indices of up to `count` misclassified examples, the least probable true class first."""
    of_truth = probabilities(predictions.outputs)[np.arange(len(predictions.labels)), predictions.labels]
    order = np.argsort(of_truth, kind="stable")
    wrong: np.ndarray = predictions.outputs.argmax(axis=1) != predictions.labels
    worst: np.ndarray = order[wrong[order]][:count]
    return worst


def examples(split: Split, indices: np.ndarray) -> Mapping[int, np.ndarray]:
    """The inputs of `indices` of an unshuffled split; reads only the batches that hold them, and short gaps."""
    found: dict[int, np.ndarray] = {}
    for first, count in _stretches(np.unique(indices // split.batch_size)):
        for step, (inputs, *_) in enumerate(split.epoch(0, first_step=first).take(count), first):
            for index in indices[indices // split.batch_size == step]:
                found[int(index)] = inputs[index % split.batch_size].numpy()
    return found


def _stretches(steps: np.ndarray) -> list[tuple[int, int]]:
    """(first, count) of steps that are read in one go: to begin anew takes as long as a few batches."""
    parts = np.split(steps, np.flatnonzero(np.diff(steps) > SHORT_GAP) + 1)
    return [(int(part[0]), int(part[-1] - part[0]) + 1) for part in parts if len(part)]


def gallery(
    images: Mapping[int, np.ndarray], predictions: Predictions, indices: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """A grid of `indices`, each titled by its true class and, below, the predicted one with its probability."""
    columns, titles = 4, 0.2  # of an image's width, for the two lines above it
    shape = images[int(indices[0])].shape if len(indices) else (1, 1)
    cell = shape[0] / shape[1] + titles
    rows = max(1, -(-len(indices) // columns))
    height = WIDTH / columns * rows * cell + HEADING
    figure = Figure(figsize=(WIDTH, height))
    heading = "true class\npredicted class (its probability)"
    figure.suptitle(heading if len(indices) else "no image of the validation split is wrong", y=1 - 0.1 / height)
    # All in one panel: a panel each would take twice as long to draw.
    axes = figure.add_axes((0, 0, 1, 1 - HEADING / height))
    softmax = probabilities(predictions.outputs)
    for place, index in enumerate(indices):
        row, left = place // columns, place % columns
        top, bottom = row * cell + titles, (row + 1) * cell
        axes.imshow(images[int(index)], cmap="gray", extent=(left + 0.02, left + 0.98, bottom, top))
        guess = int(softmax[index].argmax())
        truth, taken = _short(class_names[predictions.labels[index]]), _short(class_names[guess])
        title = f"{truth}\n{taken} ({softmax[index][guess]:.2f})"
        axes.text(left + 0.5, top - 0.02, title, ha="center", va="bottom")
    axes.set(xlim=(0, columns), ylim=(rows * cell, 0), aspect="auto")
    axes.axis("off")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
