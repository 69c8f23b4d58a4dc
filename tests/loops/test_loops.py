"""Both loops call the same callbacks, begin at a given position, and accept a custom training step."""

import gc
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.data import Splits, from_arrays
from experiments.errors import ConfigError
from experiments.loops import FitLoop, Loop, Position, TapeLoop
from experiments.loops.evaluation import Predictions, build_variables, evaluation_of
from experiments.loops.tape import Batch, train_step
from experiments.models.mlp import mlp
from experiments.sweeps.compiled_models import release_graph_functions

Logs = Mapping[str, Any]
Event = tuple[str, int | None, dict[str, float]]
STEP = "experiments.loops.tape.train_step"


def loops(steps_per_execution: int = 1) -> dict[str, Loop]:
    return {
        "fit": FitLoop(steps_per_execution, jit_compile=False),
        "tape": TapeLoop(STEP, steps_per_execution, jit_compile=False),
    }


EACH = pytest.mark.parametrize("name", loops())
BOTH = pytest.mark.parametrize("loop", loops().values(), ids=loops())


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Returns 22 training and 9 validation examples in batches of 4."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (31, 6, 6, 1), np.uint8), rng.integers(0, 3, 31)
    return from_arrays((x[:22], y[:22]), (x[22:], y[22:]), batch_size=4, shuffle=True, seed=5)


def compiled(splits: Splits, steps_per_execution: int = 1, learning_rate: float = 0.01) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = mlp([8], 0.2, input_shape=(6, 6, 1), num_classes=3)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    build_variables(model, splits.validation)
    return model


class Recorder(keras.callbacks.Callback):
    """Records every call with its index and logs."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.predictions: list[Predictions] = []

    def add(self, name: str, index: int | None, logs: Logs | None) -> None:
        self.events.append((name, index, {key: float(value) for key, value in (logs or {}).items()}))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.add("train_begin", None, logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.add("train_end", None, logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.add("epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.add("epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self.add("train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.add("train_batch_end", batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self.add("test_begin", None, logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self.add("test_end", None, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.add("test_batch_end", batch, logs)

    def on_validation_predictions(self, epoch: int, predictions: Predictions) -> None:
        self.add("validation_predictions", epoch, None)
        self.predictions.append(predictions)


def recorded(loop: Loop, splits: Splits, epochs: int = 2, start: Position | None = None, **options: Any) -> Recorder:
    recorder = Recorder()
    loop(compiled(splits, **options), splits, epochs=epochs, start=start or Position(), callbacks=[recorder])
    return recorder


@pytest.fixture(scope="module")
def events_of(splits: Splits) -> Callable[..., list[Event]]:
    """Returns a function that runs a loop and returns its calls. It is cached, because several tests compare them."""

    @cache
    def events_of(
        name: str, epochs: int = 2, start: Position | None = None, steps_per_execution: int = 1
    ) -> list[Event]:
        loop = loops(steps_per_execution)[name]
        return recorded(loop, splits, epochs, start, steps_per_execution=steps_per_execution).events

    return events_of


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_loops_make_same_calls(events_of: Callable[..., list[Event]], steps_per_execution: int) -> None:
    fit, tape = (events_of(name, steps_per_execution=steps_per_execution) for name in loops())
    assert fit == tape


@EACH
def test_callbacks_are_called_in_order(events_of: Callable[..., list[Event]], name: str) -> None:
    events = events_of(name, steps_per_execution=1)
    names = [call for call, _, _ in events]
    batch = ["train_batch_begin", "train_batch_end"]
    validation = ["test_begin", *["test_batch_end"] * 3, "test_end", "validation_predictions"]
    epoch = ["epoch_begin", *batch * 6, *validation, "epoch_end"]
    assert names == ["train_begin", *epoch * 2, "train_end"]
    ends = [(index, set(logs)) for call, index, logs in events if call == "epoch_end"]
    assert ends == [(epoch, {"loss", "accuracy", "val_loss", "val_accuracy"}) for epoch in (0, 1)]


@BOTH
def test_predictions_follow_order_of_validation_split(splits: Splits, loop: Loop) -> None:
    model, recorder = compiled(splits), Recorder()
    loop(model, splits, epochs=1, start=Position(), callbacks=[recorder])
    inputs, labels = next(iter(splits.validation.epoch(0).rebatch(9)))
    np.testing.assert_array_equal(recorder.predictions[0].labels, labels)
    np.testing.assert_allclose(recorder.predictions[0].outputs, model(inputs), atol=1e-6)


@EACH
@pytest.mark.parametrize(("start", "first"), [(Position(1, 0), (1, 0, 12)), (Position(1, 4), (1, 4, 8))])
def test_training_begins_at_given_position(
    events_of: Callable[..., list[Event]], name: str, start: Position, first: tuple[int, int, int]
) -> None:
    events = events_of(name, epochs=3, start=start)
    epochs = [index for call, index, _ in events if call == "epoch_begin"]
    batches = [index for call, index, _ in events if call == "train_batch_begin"]
    assert (epochs[0], batches[0], len(batches)) == first


@pytest.mark.parametrize("start", [Position(1, 0), Position(1, 4)])
def test_loops_agree_from_given_position(events_of: Callable[..., list[Event]], start: Position) -> None:
    fit, tape = (events_of(name, epochs=3, start=start) for name in loops())
    assert fit == tape


def stopping(**options: Any) -> keras.callbacks.Callback:
    return keras.callbacks.EarlyStopping(monitor="val_loss", mode="min", **options)


@pytest.mark.parametrize("restore", [True, False])
def test_loops_stop_early_at_same_epoch_with_same_weights(splits: Splits, restore: bool) -> None:
    outcomes = []
    for loop in loops().values():
        model, callback = compiled(splits, learning_rate=0.5), stopping(patience=2, restore_best_weights=restore)
        history = loop(model, splits, epochs=30, start=Position(), callbacks=[callback])
        outcomes.append((callback.stopped_epoch, history, [value.tolist() for value in model.get_weights()]))
    assert outcomes[0] == outcomes[1]
    assert 0 < outcomes[0][0] < 29


def test_loops_lower_learning_rate_on_plateau(splits: Splits) -> None:
    outcomes = []
    for loop in loops().values():
        model = compiled(splits, learning_rate=0.5)
        callback = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", mode="min", factor=0.1, patience=1)
        history = loop(model, splits, epochs=6, start=Position(), callbacks=[callback])
        outcomes.append((history, float(model.optimizer.learning_rate)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] < 0.5
    assert "learning_rate" in outcomes[0][0]


class StopWithin(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self.model.stop_training = batch == 2


@BOTH
def test_callback_stops_training_within_epoch(splits: Splits, loop: Loop) -> None:
    recorder = Recorder()
    loop(compiled(splits), splits, epochs=3, start=Position(), callbacks=[StopWithin(), recorder])
    names = [name for name, _, _ in recorder.events]
    assert (names.count("train_batch_end"), names.count("epoch_end"), names[-1]) == (3, 1, "train_end")


def doubled_step(model: keras.Model, batch: Batch) -> dict[str, tf.Tensor]:
    logs = train_step(model, batch)
    return {**logs, "twice": 2 * logs["loss"]}


def test_custom_step_is_used(splits: Splits) -> None:
    loop = TapeLoop(doubled_step, steps_per_execution=1, jit_compile=False)
    logs = [logs for name, _, logs in recorded(loop, splits).events if name == "train_batch_end"]
    assert all(one["twice"] == pytest.approx(2 * one["loss"]) for one in logs)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.step", "No module named 'nowhere'"),
        ("experiments.loops.tape.trainstep", "has no attribute 'trainstep'"),
        ("not a name", "invalid format: 'not a name'"),
    ],
)
def test_step_that_cannot_be_imported_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        TapeLoop(name, steps_per_execution=1, jit_compile=False)
    assert str(error.value).startswith(f"loop.train_step={name} cannot be imported (")
    assert reason in str(error.value)
    assert str(error.value).endswith("Run from the folder that contains the module, or install it.")


def test_step_that_is_not_a_function_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^loop\.train_step=experiments\.loops is a module, not a function"):
        TapeLoop("experiments.loops", steps_per_execution=1, jit_compile=False)


def test_evaluation_equals_keras(splits: Splits) -> None:
    model = compiled(splits)
    metrics, predictions = evaluation_of(model)(splits.validation)
    expected = model.evaluate(splits.validation.epoch(0), return_dict=True, verbose=0)
    assert metrics == pytest.approx(expected, rel=1e-6)
    assert predictions.outputs.shape == (9, 3)


def test_evaluation_is_traced_once_per_compiled_model(splits: Splits) -> None:
    model = compiled(splits)
    first = evaluation_of(model)
    metrics, _ = first(splits.validation)
    assert evaluation_of(model) is first
    model.compile(loss=model.loss, metrics=["sparse_categorical_crossentropy"])
    build_variables(model, splits.validation)
    assert evaluation_of(model) is not first
    again, _ = evaluation_of(model)(splits.validation)
    assert set(metrics) == {"loss", "accuracy"}
    assert set(again) == {"loss", "sparse_categorical_crossentropy"}


def test_build_variables_returns_metric_names_and_resets_metrics(splits: Splits) -> None:
    model = compiled(splits)
    assert build_variables(model, splits.validation) == ["loss", "accuracy"]
    assert all(not np.any(variable) for variable in model.metrics_variables)


@BOTH
def test_trained_model_is_garbage_collected(splits: Splits, loop: Loop) -> None:
    model = compiled(splits)
    loop(model, splits, epochs=1, start=Position(), callbacks=[])
    reference = weakref.ref(model)
    del model
    release_graph_functions()
    gc.collect()
    assert reference() is None
