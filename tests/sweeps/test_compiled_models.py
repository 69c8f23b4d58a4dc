"""Jobs that share a compiled model: bit for bit identical to separate runs, and no sharing if steps differ."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from omegaconf import DictConfig
from tests.small_training import DEFAULTS, assert_equal

from experiments.checkpoints.callback import Checkpoints
from experiments.checkpoints.training_state import everything, values
from experiments.cli.status import SILENT
from experiments.config.build import build
from experiments.errors import ModelError, StoppedRun
from experiments.loops import Position
from experiments.runs import assembly
from experiments.runs.assembly import Assemble, Built
from experiments.sweeps import compiled_models
from experiments.sweeps.compiled_models import sharing_models

Compose = Callable[..., DictConfig]
DIGITS = ("data=digits", "data.limit=70")
CNN = (*DIGITS, "model=cnn", "model.filters=[4]")


class Trained(NamedTuple):
    model: keras.Model
    values: list[np.ndarray]


@pytest.fixture(autouse=True)
def no_shared_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "_shared", {})


Job = Callable[..., Trained]
ModelOf = Callable[..., keras.Model]


def config(composed: Compose, *overrides: str) -> DictConfig:
    return composed("logging=none", "model.dropout=0.2", "epochs=2", *overrides)


@pytest.fixture
def job(composed: Compose) -> Job:
    def job(
        *overrides: str,
        assemble: Assemble = assembly.assemble,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        checkpoints: Path | None = None,
    ) -> Trained:
        """`checkpoints` is the folder to resume from."""
        cfg = config(composed, *overrides)
        built = assemble(cfg, None, SILENT)
        head = built.target.model
        start = Position() if checkpoints is None else checkpoints_in(checkpoints, built).restore()
        build(cfg.loop)(*built.target, epochs=cfg.epochs, start=start, callbacks=callbacks)
        return Trained(head, values(everything(head, built.model)))

    return job


def checkpoints_in(folder: Path, built: Built) -> Checkpoints:
    return Checkpoints(folder, DEFAULTS, model=built.target.model, full_model=built.model)


class Stop(keras.callbacks.Callback):
    """Stops a job at the end of the first epoch, as a pruner does."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        raise StoppedRun("pruned")


@pytest.fixture
def in_sweep(job: Job) -> Job:
    def in_sweep(*overrides: str, **options: Any) -> Trained:
        with sharing_models() as assemble:
            return job(*overrides, assemble=assemble, **options)

    return in_sweep


@pytest.fixture
def model_of(composed: Compose) -> ModelOf:
    """Returns the model of a job of a sweep. The job ends with the error `ends`, if there is one."""

    def model_of(*overrides: str, ends: Exception | None = None) -> keras.Model:
        with suppress(RuntimeError, StoppedRun), sharing_models() as assemble:
            model = assemble(config(composed, *overrides), None, SILENT).model
            if ends is not None:
                raise ends
        return model

    return model_of


@pytest.mark.parametrize(
    "overrides",
    [
        [*CNN, "loop=fit", "callbacks=reduce_on_plateau"],
        [*CNN, "loop=tape", "optimizer.use_ema=true", "optimizer.gradient_accumulation_steps=2", "augment=flip"],
        [*DIGITS, "model=mlp", "loop=tape", "runtime.precision=mixed_float16", "loop.steps_per_execution=2"],
    ],
)
def test_shared_model_is_bit_exact(job: Job, in_sweep: Job, overrides: list[str]) -> None:
    changed = [*overrides, "seed=5", "optimizer.learning_rate=0.02", "epochs=3"]
    first = in_sweep(*overrides)
    with pytest.raises(StoppedRun):
        in_sweep(*overrides, "seed=2", callbacks=[Stop()])
    again = in_sweep(*changed)
    assert again.model is first.model
    assert_equal(again.values, job(*changed).values)


def test_resumed_run_in_shared_model_is_bit_exact(job: Job, in_sweep: Job, composed: Compose, tmp_path: Path) -> None:
    first = in_sweep(*CNN)
    cfg = config(composed, *CNN, "seed=5")
    begun = assembly.assemble(cfg, None, SILENT)
    build(cfg.loop)(*begun.target, epochs=1, start=Position(), callbacks=[checkpoints_in(tmp_path, begun)])
    again = in_sweep(*CNN, "seed=5", checkpoints=tmp_path)
    assert again.model is first.model
    assert_equal(again.values, job(*CNN, "seed=5").values)


@pytest.fixture
def frozen(tmp_path: Path) -> list[str]:
    """Overrides for a head on frozen layers whose weights depend on the seed."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 32, 32, 3)).astype("uint8"), np.arange(20) % 3
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_validation=images[:9], y_validation=labels[:9])
    return [
        "data=npz",
        f"data.path={tmp_path / 'x.npz'}",
        *("model=application", "model.architecture=MobileNet", "model.weights=null", "model.alpha=0.25"),
    ]


@pytest.mark.slow
def test_shared_head_is_bit_exact(job: Job, in_sweep: Job, frozen: list[str]) -> None:
    first = in_sweep(*frozen)
    again = in_sweep(*frozen, "seed=5")
    assert again.model is first.model
    assert_equal(again.values, job(*frozen, "seed=5").values)


@pytest.mark.slow
def test_head_and_full_model_are_not_shared(
    model_of: ModelOf, frozen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds may decide whether features can be cached, because this is measured with weights drawn from the seed."""

    def refused(model: keras.Model, dtype: str) -> None:
        raise ModelError("those of this one differ")

    first = model_of(*frozen)
    monkeypatch.setattr("experiments.runs.assembly.split_frozen", refused)
    assert model_of(*frozen, "seed=5") is not first


def test_different_steps_are_not_shared(model_of: ModelOf) -> None:
    first = model_of(*CNN, "schedule=cosine")
    for changed in (
        "model.dropout=0.3",
        "optimizer=sgd",
        "optimizer.learning_rate=0.5",
        "epochs=3",
        "data.batch_size=16",
        "metrics=[accuracy,top_k]",
        "loop=tape",
    ):
        assert model_of(*CNN, "schedule=cosine", changed) is not first, changed
    assert model_of(*CNN, "schedule=cosine", "seed=7") is first


def test_sampler_does_not_prevent_sharing(model_of: ModelOf) -> None:
    sampled = [*CNN, "sweep.sampler={_target_: optuna.samplers.TPESampler}"]
    first = model_of(*sampled)
    assert model_of(*sampled, "optimizer.learning_rate=0.5") is first


def test_custom_components_are_not_shared(model_of: ModelOf) -> None:
    custom = [*CNN, "model._target_=tests.small_training.own_cnn"]
    assert model_of(*custom) is not model_of(*custom)


@pytest.mark.parametrize(("ends", "shares"), [(RuntimeError("halfway"), False), (StoppedRun("pruned"), True)])
def test_model_is_shared_after_pruning_but_not_after_failure(model_of: ModelOf, ends: Exception, shares: bool) -> None:
    first = model_of(*CNN, ends=ends)
    assert (model_of(*CNN) is first) == shares


def test_least_recently_used_model_is_dropped(model_of: ModelOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "KEPT", 2)
    first, second, third = (model_of(*CNN, f"model.dropout={rate}") for rate in (0.1, 0.2, 0.3))
    again = [model_of(*CNN, f"model.dropout={rate}") for rate in (0.3, 0.2, 0.1)]
    assert again[:2] == [third, second]
    assert again[2] is not first


def test_large_models_are_not_shared(model_of: ModelOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "LARGEST", 1000)
    assert model_of(*CNN) is not model_of(*CNN)
