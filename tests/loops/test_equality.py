"""`loop=fit` and `loop=tape` train bit for bit identical weights and report equal metrics."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from omegaconf import DictConfig

from experiments.config.build import build, build_each
from experiments.data import Splits
from experiments.loops import History, Position
from experiments.loops.evaluation import build_variables
from experiments.runs import runtime
from experiments.runs.assembly import compile_model

Compose = Callable[..., DictConfig]
CNN = "model=cnn model.filters=[4] model.dropout=0.3 model.l2=0.001"
FROZEN = "model=mobilenetv2 model.alpha=0.35 model.weights=null"
BFLOAT16 = "runtime.precision=mixed_bfloat16"
MIRRORED = "runtime.strategy=mirrored"
AVERAGED = "optimizer.use_ema=true optimizer.ema_momentum=0.9"
COMBINED = f"{AVERAGED} optimizer.gradient_accumulation_steps=2 optimizer.global_clipnorm=0.1"
FAST_CHANGES = {"plain": "", "ema_accumulation_clipping": COMBINED}
SLOW_CHANGES = {
    "float16_augmentation_warmup": (
        "runtime.precision=mixed_float16 augment=[flip,rot90,color_jitter] schedule=cosine schedule.warmup_steps=3"
    ),
    "steps_per_execution_ema_overwriting": (
        "loop.steps_per_execution=3 optimizer.use_ema=true optimizer.ema_overwrite_frequency=3"
    ),
    "mirrored_bfloat16_ema_clipping_augmentation_steps_per_execution": (
        f"{MIRRORED} {BFLOAT16} {AVERAGED} optimizer.global_clipnorm=0.1 augment=standard loop.steps_per_execution=3"
    ),
}
LONG_CHANGES = {"bfloat16": BFLOAT16}
FROZEN_CHANGES = {
    "ema_accumulation_clipping": COMBINED,
    "mirrored_bfloat16_augmentation": f"{MIRRORED} {BFLOAT16} augment=[flip,rot90,color_jitter]",
}
"""Each training combines several changes, because it takes seconds."""


class Trained(NamedTuple):
    variables: list[np.ndarray]
    history: History


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes 37 training and 13 validation images. With batches of 8, the last batch of both is short."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (50, 32, 32, 3), np.uint8), rng.integers(0, 3, 50)
    path = tmp_path_factory.mktemp("arrays") / "noise.npz"
    np.savez(path, x_train=images[:37], y_train=labels[:37], x_validation=images[37:], y_validation=labels[37:])
    return path


@pytest.fixture(scope="module")
def train(composed: Compose, arrays: Path) -> Callable[..., Trained]:
    @cache
    def train(*overrides: str) -> Trained:
        common = ("epochs=2", "seed=3", "data=npz", f"data.path='{arrays}'", "data.batch_size=8")
        cfg = composed(*common, "optimizer.learning_rate=0.01", *overrides)
        model, splits = prepared(cfg)
        history = build(cfg.loop)(model, splits, epochs=cfg.epochs, start=Position(), callbacks=[])
        return Trained([variable.numpy() for variable in model.variables], history)

    return train


def prepared(cfg: DictConfig) -> tuple[keras.Model, Splits]:
    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    with strategy.scope():
        spec = splits.train.spec
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        compile_model(cfg, model, splits)
    build_variables(model, splits.validation)
    return model, splits


def assert_equal(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    assert len(one.history["val_loss"]) == 2
    for mine, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("changes", FAST_CHANGES.values(), ids=FAST_CHANGES)
def test_loops_agree_on_cnn(train: Callable[..., Trained], changes: str) -> None:
    overrides = f"{CNN} {changes}".split()
    assert_equal(train("loop=fit", *overrides), train("loop=tape", *overrides))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [*SLOW_CHANGES.values(), *(pytest.param(overrides, marks=pytest.mark.long) for overrides in LONG_CHANGES.values())],
    ids=[*SLOW_CHANGES, *LONG_CHANGES],
)
def test_loops_agree_on_cnn_with_changes(train: Callable[..., Trained], changes: str) -> None:
    overrides = f"{CNN} {changes}".split()
    assert_equal(train("loop=fit", *overrides), train("loop=tape", *overrides))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        FROZEN_CHANGES["ema_accumulation_clipping"],
        pytest.param(FROZEN_CHANGES["mirrored_bfloat16_augmentation"], marks=pytest.mark.long),
    ],
    ids=FROZEN_CHANGES,
)
def test_loops_agree_on_frozen_mobilenetv2(train: Callable[..., Trained], changes: str) -> None:
    overrides = f"{FROZEN} {changes}".split()
    assert_equal(train("loop=fit", *overrides), train("loop=tape", *overrides))


def test_fit_loop_equals_one_call_of_keras_fit(composed: Compose, arrays: Path, train: Callable[..., Trained]) -> None:
    """Compares one `model.fit(epochs=2)` with the loop, which calls `model.fit` once per epoch."""
    overrides = (*CNN.split(), "epochs=2", "seed=3", "data=npz", f"data.path='{arrays}'", "data.batch_size=8")
    model, splits = prepared(composed(*overrides, "optimizer.learning_rate=0.01"))
    both = splits.train.epoch(0).concatenate(splits.train.epoch(1))
    fitted = model.fit(
        both,
        epochs=2,
        steps_per_epoch=splits.train.steps_per_epoch,
        validation_data=splits.validation.epoch(0),
        shuffle=False,
        verbose=0,
    )
    assert_equal(
        Trained([variable.numpy() for variable in model.variables], fitted.history), train("loop=fit", *overrides)
    )


def test_another_seed_trains_other_weights(train: Callable[..., Trained]) -> None:
    """Otherwise, the tests of equality would prove nothing."""
    overrides = CNN.split()
    assert train("loop=fit", *overrides).history != train("loop=fit", *overrides, "seed=4").history
