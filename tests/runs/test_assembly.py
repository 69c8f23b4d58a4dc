"""Cached features of frozen layers: identical results, and a reason if they cannot be cached."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from omegaconf import DictConfig

from experiments.config.build import CACHE_FEATURES, build, build_each
from experiments.data import DataSpec, Splits
from experiments.data.cache.features import FeatureSource
from experiments.data.pipeline import IndexedSplit
from experiments.errors import ConfigError, DataError
from experiments.loops import Position
from experiments.loops.evaluation import build_variables
from experiments.runs import runtime
from experiments.runs.assembly import TrainingTarget, build_model, compile_model, training_target

FROZEN = ["model=mobilenetv2", "model.weights=null", "model.alpha=0.35", "optimizer.learning_rate=0.01"]
Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of 37 small images: three batches of 12 and a short one."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("features") / "images.npz"
    labels = np.arange(37) % 3
    images = rng.integers(0, 256, (37, 32, 32, 3)).astype("uint8")
    np.savez(path, x_train=images, y_train=labels, x_validation=images[:13], y_validation=labels[:13])
    return path


def test_published_network_gives_same_outputs_for_each_range_of_images(composed: Compose) -> None:
    cfg, pixels = composed(*FROZEN).model, np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    spec = DataSpec((32, 32, 3), "uint8", 3, ("a", "b", "c"), 4, "", (1, 1, 2), "")
    model = build_model(cfg, spec)
    floats = {
        range_: build_model(cfg, replace(spec, input_dtype="float32", value_range=range_))
        for range_ in ("0..255", "0..1")
    }
    expected = model(pixels)
    for range_, inputs in (("0..255", pixels.astype("float32")), ("0..1", pixels.astype("float32") / 255)):
        floats[range_].set_weights(model.get_weights())
        np.testing.assert_allclose(floats[range_](inputs), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("range_", "received"),
    [
        ("other", "other. Convert the inputs, best to uint8,"),
        (None, "unknown. Set value_range in the DataSpec,"),
    ],
)
def test_published_network_refuses_an_unknown_range(composed: Compose, range_: str | None, received: str) -> None:
    cfg = composed(*FROZEN).model
    spec = DataSpec((32, 32, 3), "float32", 3, ("a", "b", "c"), 4, "", (1, 1, 2), "", value_range=range_)
    with pytest.raises(DataError) as raised:
        build_model(cfg, spec)
    assert str(raised.value) == (
        "MobileNetV2 needs images [height, width, 1 or 3] with values in 0..255 or 0..1: received inputs [32, 32, 3] "
        f"of float32 in the range {received} or do without MobileNetV2."
    )
    build_model(cfg, replace(spec, split_rules=1))  # an earlier version trained it


def trained(cfg: DictConfig) -> tuple[TrainingTarget, list[np.ndarray]]:
    """Returns the training target after two epochs, and all variables of the full model."""
    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    with strategy.scope():
        spec = splits.train.spec
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        give_statistics(model)
        target = training_target(model, splits, cache_features=cfg.model.get(CACHE_FEATURES, False))
        compile_model(cfg, *target)
    build_variables(target.model, target.splits.validation)
    build(cfg.loop)(*target, epochs=2, start=Position(), callbacks=[])
    return target, [variable.numpy().copy() for variable in model.variables]


def give_statistics(model: keras.Model) -> None:
    """Assigns statistics like those of a trained network.

    With initial statistics, batch norm folded into a convolution gives the same bits as separate layers.
    """
    rng = np.random.default_rng(0)
    for variable in model.non_trainable_variables:
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            variable.assign(variable + rng.uniform(-0.3, 0.3, variable.shape))


@pytest.fixture(scope="module")
def overrides_with_batches(arrays: Path) -> list[str]:
    return [*FROZEN, "data=npz", f"data.path='{arrays}'", "data.batch_size=12"]


@pytest.fixture(scope="module")
def uncached(composed: Compose, overrides_with_batches: list[str]) -> tuple[TrainingTarget, list[np.ndarray]]:
    """Target and variables without a cache. Only `fit` is trained, because both loops are bit for bit identical."""
    return trained(composed(*overrides_with_batches, "loop=fit", "model.cache_features=false"))


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_cached_features_train_identical_weights(
    composed: Compose, overrides_with_batches: list[str], uncached: tuple[TrainingTarget, list[np.ndarray]], loop: str
) -> None:
    cached, variables = trained(composed(*overrides_with_batches, f"loop={loop}", "model.cache_features=true"))
    plain, expected = uncached
    assert isinstance(cached.splits.train, IndexedSplit)
    assert isinstance(plain.splits.train, IndexedSplit)
    assert cached.splits.train.spec.input_shape == (1280,)
    assert plain.splits.train.spec.input_shape == (32, 32, 3)
    for mine, theirs in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.freeze=false"], "mobilenetv2 has no frozen layers at its start, or they draw random numbers"),
        (["augment=flip"], "augmented images differ in every epoch"),
        (["runtime.precision=mixed_bfloat16"], "under runtime.precision=mixed_bfloat16 features would be stored"),
    ],
)
def test_reason_is_reported_if_features_cannot_be_cached(
    composed: Compose, arrays: Path, caplog: pytest.LogCaptureFixture, overrides: list[str], reason: str
) -> None:
    cfg = composed(*FROZEN, "data=npz", f"data.path='{arrays}'", *overrides)
    runtime.configure(seed=0, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=0, augment=build_each(cfg.augment))
    model = build(cfg.model, input_shape=(32, 32, 3), num_classes=3)
    with pytest.raises(ConfigError, match=f"^model.cache_features=true is not possible: {reason}"):
        training_target(model, splits, cache_features=True)
    with caplog.at_level(logging.INFO):
        assert training_target(model, splits, cache_features="auto").model is model
    assert reason in caplog.text


def test_feature_source_keeps_names_and_has_no_read_errors(composed: Compose, arrays: Path) -> None:
    cfg = composed(*FROZEN, "data=npz", f"data.path='{arrays}'")
    runtime.configure(seed=0, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=0, augment=[])
    model = build(cfg.model, input_shape=(32, 32, 3), num_classes=3)
    target = training_target(model, splits, cache_features=True)
    assert isinstance(splits.train, IndexedSplit)
    source = FeatureSource(splits.train.source, target.model, (3,))
    assert source.names == splits.train.source.names
    assert source.unreadable_examples() == []
    assert source.read_error() is None
