"""Features of frozen layers, kept: equal results, said or refused where they cannot be kept."""

import logging
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from omegaconf import DictConfig

from experiments.config.build import build, build_each, caches_features
from experiments.data import Splits
from experiments.data.cache.features import FeatureSource
from experiments.data.pipeline import IndexedSplit
from experiments.errors import ConfigError
from experiments.loops import Position
from experiments.loops.evaluation import build_variables
from experiments.runs import runtime
from experiments.runs.assembly import TrainingTarget, compile_model, training_target

FROZEN = ["model=mobilenetv2", "model.weights=null", "model.alpha=0.35", "optimizer.learning_rate=0.01"]
Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 small images: three batches of 12 and a short one."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("features") / "images.npz"
    labels = np.arange(37) % 3
    images = rng.integers(0, 256, (37, 32, 32, 3)).astype("uint8")
    np.savez(path, x_train=images, y_train=labels, x_validation=images[:13], y_validation=labels[:13])
    return path


def prepared(cfg: DictConfig) -> tuple[TrainingTarget, list[np.ndarray]]:
    """What the loop trains after two epochs, and all variables of the whole model."""
    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    with strategy.scope():
        spec = splits.train.spec
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        give_statistics(model)
        part = training_target(model, splits, cache_features=caches_features(cfg.model))
        compile_model(cfg, *part)
    build_variables(part.model, part.splits.validation)
    build(cfg.loop)(*part, epochs=2, start=Position(), callbacks=[])
    return part, [variable.numpy().copy() for variable in model.variables]


def give_statistics(model: keras.Model) -> None:
    """As of a trained network: with fresh ones, batch norm folded into a convolution gives the same bits as apart."""
    rng = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            variable.assign(variable + rng.uniform(-0.3, 0.3, variable.shape))


@pytest.fixture(scope="module")
def in_batches(arrays: Path) -> list[str]:
    return [*FROZEN, "data=npz", f"data.path='{arrays}'", "data.batch_size=12"]


@pytest.fixture(scope="module")
def not_kept(composed: Compose, in_batches: list[str]) -> tuple[TrainingTarget, list[np.ndarray]]:
    """By one loop for both, which train the same bits."""
    return prepared(composed(*in_batches, "loop=fit", "model.cache_features=false"))


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_kept_features_change_no_bit(
    composed: Compose, in_batches: list[str], not_kept: tuple[TrainingTarget, list[np.ndarray]], loop: str
) -> None:
    kept, variables = prepared(composed(*in_batches, f"loop={loop}", "model.cache_features=true"))
    plain, expected = not_kept
    assert isinstance(kept.splits.train, IndexedSplit)
    assert isinstance(plain.splits.train, IndexedSplit)
    assert kept.splits.train.spec.input_shape == (1280,)
    assert plain.splits.train.spec.input_shape == (32, 32, 3)
    for mine, theirs in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["model.freeze=false"], "mobilenetv2 does not begin with frozen layers that draw no random numbers"),
        (["augment=flip"], "augmented images differ in every epoch"),
        (["runtime.precision=mixed_bfloat16"], "under runtime.precision=mixed_bfloat16 features would be kept"),
    ],
)
def test_where_features_cannot_be_kept(
    composed: Compose, arrays: Path, caplog: pytest.LogCaptureFixture, words: list[str], reason: str
) -> None:
    cfg = composed(*FROZEN, "data=npz", f"data.path='{arrays}'", *words)
    runtime.configure(seed=0, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=0, augment=build_each(cfg.augment))
    model = build(cfg.model, input_shape=(32, 32, 3), num_classes=3)
    with pytest.raises(ConfigError, match=f"^model.cache_features=true cannot be: {reason}"):
        training_target(model, splits, cache_features=True)
    with caplog.at_level(logging.INFO):
        assert training_target(model, splits, cache_features="auto").model is model
    assert reason in caplog.text


def test_features_describe_themselves(composed: Compose, arrays: Path) -> None:
    cfg = composed(*FROZEN, "data=npz", f"data.path='{arrays}'")
    runtime.configure(seed=0, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=0, augment=[])
    model = build(cfg.model, input_shape=(32, 32, 3), num_classes=3)
    part = training_target(model, splits, cache_features=True)
    assert isinstance(splits.train, IndexedSplit)
    source = FeatureSource(splits.train.source, part.model, (3,))
    assert source.names == splits.train.source.names
    assert source.unreadable_examples() == []
    assert source.read_error() is None
