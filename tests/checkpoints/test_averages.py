"""Moving averages of the weights are validated, kept as best, and evaluated from each kind of checkpoint.

Expected values come from NumPy: averages from the weights after each step, and losses from a network in NumPy.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.checkpoints.callback import CheckpointOptions, Checkpoints
from experiments.cli.signals import Interruption
from experiments.cli.status import SILENT
from experiments.config.build import build
from experiments.data import Splits
from experiments.loops import History
from experiments.loops.averages import averaged, averages
from experiments.loops.evaluation import Evaluation
from experiments.records.finished_run import FinishedRun
from experiments.runs import restored_run
from experiments.runs.assembly import assemble

Compose = Callable[..., DictConfig]
Weights = list[np.ndarray]
MOMENTUM, STEPS = 0.7, 3
"""Momentum of the averages, and number of steps per epoch."""
COMMON = (
    "data=npz data.batch_size=8 model=mlp model.hidden_sizes=[5] model.dropout=0.1 epochs=2 logging=none "
    "optimizer.learning_rate=0.02 checkpoint.every_epoch=true checkpoint.every_n_steps=2 checkpoint.max_to_keep=9 "
    "monitor.metric=val_loss monitor.mode=min logging.log_model=false"
)
SCHEDULES = (
    "schedule=constant",
    "schedule=constant schedule.warmup_steps=2",
    "schedule=cosine schedule.warmup_steps=1",
    "schedule=exponential",
    "schedule=piecewise schedule.boundaries=[0.4] schedule.factors=[0.1]",
)
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lion")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
NOT_DAILY = sorted(set(range(25)) - {1, 4})
"""Combinations for the long tests."""
EMA = f"optimizer.use_ema=true optimizer.ema_momentum={MOMENTUM}"


def cell(number: int) -> str:
    """Overrides of one of 25 combinations, which contain each pair of a schedule and an optimizer once."""
    schedule, row = number % 5, number // 5
    words = [SCHEDULES[schedule], f"optimizer={OPTIMIZERS[(row + schedule) % 5]}"]
    words += [f"runtime.precision={PRECISIONS[number // 2 % 3]}", f"loop={('fit', 'tape')[number // 3 % 2]}"]
    return " ".join([*words, EMA] if (number + row) % 2 == 0 else words)


class Recorder(keras.callbacks.Callback):
    """Records the weights after each step, and those that a callback finds at the end of an epoch.

    Sets the signal after `stop` training steps, or during the validation after them, if `validating`.
    """

    def __init__(self, interruption: Interruption, stop: int | None, *, validating: bool) -> None:
        super().__init__()
        self.after_steps: list[Weights] = []
        self.at_ends: list[Weights] = []
        self._interruption, self._stop, self._validating = interruption, stop, validating

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.after_steps.append(self.model.get_weights())
        if len(self.after_steps) == self._stop and not self._validating:
            self._interruption.signal = signal.SIGTERM

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        if len(self.after_steps) == self._stop and self._validating:
            self._interruption.signal = signal.SIGTERM

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.at_ends.append(self.model.get_weights())


class Trained(NamedTuple):
    cfg: DictConfig
    splits: Splits
    folder: Path
    recorder: Recorder
    history: History
    variables: Weights
    best_epoch: int

    @property
    def expected(self) -> list[Weights]:
        """Weights that stand for each step: the averages, by Keras's formula, if the run keeps any."""
        found: list[Weights] = []
        for weights in self.recorder.after_steps:
            if self.cfg.optimizer.use_ema and found:
                pairs = zip(found[-1], weights, strict=True)
                weights = [MOMENTUM * average + (1 - MOMENTUM) * weight for average, weight in pairs]
            found.append(weights)
        return found


Train = Callable[..., Trained]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("arrays") / "noise.npz"
    inputs, labels = rng.normal(size=(31, 6)).astype(np.float32), np.arange(31) % 3
    np.savez(path, x_train=inputs[:22], y_train=labels[:22], x_validation=inputs[22:], y_validation=labels[22:])
    return path


@pytest.fixture
def train(composed: Compose, arrays: Path, tmp_path: Path) -> Iterator[Train]:
    def train(name: str, overrides: str, stop: int | None = None, *, validating: bool = False) -> Trained:
        cfg = composed(*COMMON.split(), f"data.path='{arrays}'", *overrides.split())
        built, interruption, folder = assemble(cfg, None, SILENT), Interruption(), tmp_path / name
        recorder = Recorder(interruption, stop, validating=validating)
        options = CheckpointOptions(metric=cfg.monitor.metric, mode=cfg.monitor.mode, **cfg.checkpoint)
        checkpoints = Checkpoints(folder, options, model=built.model, interruption=interruption)
        start = checkpoints.restore()
        callbacks = [recorder, checkpoints]
        history = build(cfg.loop)(*built.target, epochs=cfg.epochs, start=start, callbacks=callbacks)
        every = [*built.model.variables, *built.model.optimizer.variables]
        assert checkpoints.best is not None
        values = [variable.numpy() for variable in every]
        return Trained(cfg, built.splits, folder, recorder, history, values, checkpoints.best.epoch)

    yield train
    keras.config.set_dtype_policy("float32")


def loss(weights: Weights, splits: Splits) -> float:
    """Mean cross-entropy on the validation split, of a network with one hidden layer."""
    inputs, labels = (np.concatenate(parts) for parts in zip(*splits.validation.epoch(0), strict=True))
    (kernel, bias), (last_kernel, last_bias) = weights[:2], weights[2:4]
    logits = np.maximum(inputs @ kernel + bias, 0) @ last_kernel + last_bias
    exponents = np.exp(logits)
    return float(-np.log(exponents[np.arange(len(labels)), labels] / exponents.sum(axis=1)).mean())


def restored(trained: Trained, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> keras.Model:
    """Returns the model that `evaluate` and `predict` use."""

    @contextmanager
    def found(*_: Any) -> Iterator[FinishedRun]:
        yield FinishedRun("id", deepcopy(trained.cfg), trained.splits.train.spec, trained.folder)

    monkeypatch.setattr(restored_run, "finished_run", found)
    store = {"tracking_uri": None, "experiment_name": ""}
    command = OmegaConf.create({"run_id": "id", "checkpoint": checkpoint, "logging": store})
    return restored_run.restored_run(command).model


def assert_equal(mine: Weights, theirs: Weights, tolerance: float = 0.0) -> None:
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def check_kinds(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares each kind of checkpoint with the weights after its step."""
    expected, tolerance = trained.expected, 1e-2 if "mixed" in trained.cfg.runtime.precision else 1e-5
    for epoch in range(2):
        value = loss(expected[STEPS * (epoch + 1) - 1], trained.splits)
        assert trained.history["val_loss"][epoch] == pytest.approx(value, abs=tolerance)
    assert_equal(trained.recorder.at_ends[-1], expected[-1], 1e-6)
    assert trained.best_epoch == int(np.argmin(trained.history["val_loss"]))
    steps = {"latest": 2 * STEPS, "best": STEPS * (trained.best_epoch + 1), "2": 2}
    for checkpoint, step in steps.items():
        model = restored(trained, checkpoint, monkeypatch)
        assert_equal(model.get_weights(), expected[step - 1], 1e-6)
    metrics, _ = Evaluation(model)(trained.splits.validation)
    assert metrics["loss"] == pytest.approx(loss(expected[1], trained.splits), abs=tolerance)


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        ("sgd", "float32"),
        ("adam", "float32"),
        ("rmsprop", "mixed_float16"),
        pytest.param("sgd", "mixed_float16", marks=pytest.mark.long),
        pytest.param("adam", "mixed_float16", marks=pytest.mark.long),
        pytest.param("rmsprop", "float32", marks=pytest.mark.long),
    ],
)
def test_averages_are_exact_in_both_loops_and_after_stops(
    train: Train, monkeypatch: pytest.MonkeyPatch, optimizer: str, precision: str
) -> None:
    """Training with `fit` equals training with `tape` that is stopped within an epoch, and during validation."""
    overrides = f"optimizer={optimizer} runtime.precision={precision} {EMA}"
    fitted = train("fit", f"{overrides} loop=fit")
    check_kinds(fitted, monkeypatch)
    weights, averaged_weights = fitted.recorder.after_steps[-1], fitted.recorder.at_ends[-1]
    assert any(not np.array_equal(one, other) for one, other in zip(weights, averaged_weights, strict=True))
    for stop, validating in ((2, False), (1, True)):
        with pytest.raises(SystemExit):
            train("tape", f"{overrides} loop=tape", stop, validating=validating)
    resumed = train("tape", f"{overrides} loop=tape")
    assert len(resumed.recorder.after_steps) == STEPS
    assert resumed.history == fitted.history
    assert_equal(resumed.variables, fitted.variables)


@pytest.mark.parametrize("number", [1, 4, *(pytest.param(each, marks=pytest.mark.long) for each in NOT_DAILY)])
def test_each_checkpoint_is_evaluated(train: Train, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    trained = train("run", cell(number))
    check_kinds(trained, monkeypatch)
    assert len(trained.recorder.after_steps) == STEPS * trained.cfg.epochs


def test_weights_stay_in_place_before_the_first_update() -> None:
    """The averages are zeros then. Updates are skipped while the loss scale of mixed_float16 is too large."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    before = model.get_weights()
    with averaged(model):
        assert_equal(model.get_weights(), before)
    assert not any(np.any(average) for average in averages(model))
