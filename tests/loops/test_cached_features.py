"""`fit` and `tape` read equal batches and train equal weights with each image cache, empty or complete."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import DictConfig
from PIL import Image

from experiments.config.build import build, build_each
from experiments.data.base import DataSpec, Split, Splits
from experiments.data.cache.listing import entries
from experiments.data.images.image_source import Decoder
from experiments.data.pipeline import side_effect
from experiments.loops import Position
from experiments.loops.evaluation import build_variables
from experiments.runs import runtime
from experiments.runs.assembly import compile_model

Compose = Callable[..., DictConfig]
MODEL = ["model=cnn", "model.filters=[4]", "model.dropout=0.3", "augment=[flip]", "optimizer.learning_rate=0.01"]


class Trained(NamedTuple):
    """Weights after training. `batches` are hashes of the batches, in the order in which the loop read them."""

    batches: list[str]
    weights: list[np.ndarray]


@dataclass(frozen=True)
class RecordedSplit:
    """A split that records its batches when a loop reads them."""

    split: Split
    batches: list[str]

    @property
    def spec(self) -> DataSpec:
        return self.split.spec

    @property
    def batch_size(self) -> int:
        return self.split.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return self.split.steps_per_epoch

    def epoch(self, epoch: int, *, first_step: int = 0) -> tf.data.Dataset:
        batches = self.split.epoch(epoch, first_step=first_step)
        # One call at a time: by default, TensorFlow runs calls in parallel, which would change the recorded order.
        return batches.map(lambda x, y: (side_effect(self._record, [x, y], x), y), num_parallel_calls=1)

    def _record(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.batches.append(hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates 19 training and 6 validation images of noise. With batches of 8, the last batch is short."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for folder, count in {"train/a": 10, "train/b": 9, "valid/a": 3, "valid/b": 3}.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 18, 3), np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.fixture
def train(composed: Compose, photos: Path) -> Callable[..., Trained]:
    def train(*overrides: str) -> Trained:
        cfg = composed(
            "epochs=2", "seed=3", "data=image_folder", f"data.path='{photos}'", "data.image_size=[16,16]",
            "data.batch_size=8", *MODEL, *overrides,
        )  # fmt: skip
        runtime.configure(seed=cfg.seed, **cfg.runtime)
        splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
        recorded = RecordedSplit(splits.train, [])
        spec = splits.train.spec
        model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
        compile_model(cfg, model, splits)
        build_variables(model, splits.validation)
        build(cfg.loop)(model, replace(splits, train=recorded), epochs=2, start=Position(), callbacks=[])
        return Trained(recorded.batches, [variable.numpy() for variable in model.variables])

    return train


@pytest.mark.slow
def test_loops_agree_while_pack_is_written_and_when_it_is_complete(
    train: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_disk(loop: str) -> Trained:
        return train(f"loop={loop}", "data.cache=disk", f"data.cache_dir='{tmp_path / loop}'")

    plain = train("loop=fit", "data.cache=none")
    cold = [on_disk("fit"), on_disk("tape")]
    for loop in ("fit", "tape"):
        wait_for_packs(tmp_path / loop)
    monkeypatch.delattr(Decoder, "read")  # A complete pack is read without decoding images.
    warm = [on_disk("fit"), on_disk("tape")]
    assert len(set(plain.batches)) == 6
    for trained in (*cold, *warm):
        assert trained.batches == plain.batches
        for weight, expected in zip(trained.weights, plain.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)


def wait_for_packs(cache_dir: Path) -> None:
    until = time.monotonic() + 30
    while [entry.state for entry in entries(str(cache_dir))] != ["complete", "complete"]:
        assert time.monotonic() < until
        time.sleep(0.01)
