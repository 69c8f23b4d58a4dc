"""Choices, params, names and descriptions of runs, for ordinary and hostile configs."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.data.base import DataSpec
from experiments.records.description import at_end, at_start, choices, params, run_name
from experiments.records.fingerprint import NEUTRAL
from experiments.records.snapshot import CHOICES, write_snapshot

SPEC = DataSpec((8, 6, 1), "uint8", 2, ("a", "b"), 1205, "digest", (600, 605), "photos/a `b` <b>")
DEFAULTS = {"model": "cnn", "data": "digits", "loop": "fit", "optimizer": "adam", "schedule": "constant"}
DEFAULTS |= {"metrics": "accuracy", "augment": "none", "callbacks": "none", "loss": "sparse_categorical_crossentropy"}
Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def hydra_as_before() -> Iterator[None]:
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def set_hydra(key: str, value: Any) -> None:
    """Sets a value of Hydra's own config, as another command line would."""
    cfg: Any = HydraConfig.instance().cfg
    with read_write(cfg.hydra):
        OmegaConf.update(cfg, f"hydra.{key}", value, force_add=True)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", {}),
        ("model=mlp loop=tape augment=flip", {"model": "mlp", "loop": "tape", "augment": "flip"}),
        ("augment=[flip,rot90] metrics=[top_k,accuracy]", {"augment": "flip+rot90", "metrics": "top_k+accuracy"}),
        ("callbacks=[early_stopping] metrics=[]", {"callbacks": "early_stopping", "metrics": "none"}),
        ("experiment=fit_or_tape debug=one_batch", {"experiment": "fit_or_tape", "debug": "one_batch"}),
        ("logging=none hydra/job_logging=none seed=3", {}),
    ],
)
def test_choices_are_options_as_typed(composed: Compose, overrides: str, expected: dict[str, str]) -> None:
    cfg = composed(*overrides.split())
    found = choices(cfg)
    assert found == {**DEFAULTS, **expected, **{name: found[name] for name in found if overrides.startswith("exp")}}
    assert found.items() >= expected.items()


def test_primary_config_of_a_user_may_lack_groups(tmp_path: Path) -> None:
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "high.yaml").write_text("floors: 9")
    (tmp_path / "mine.yaml").write_text(
        "defaults: [{tower: high}, _self_]\nepochs: 2\nseed: 0\nlogging: {run_name: null}\n"
        "metrics: {mae: {_target_: m.mae}}\nmodel: {_target_: my.towers.Tower, width: 3}\n"
        "data: {_target_: my.rows, path: rows.csv}\n"
    )
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        cfg = compose("mine", return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    assert choices(cfg) == {"metrics": "mae", "tower": "high"}
    assert run_name(cfg) == "Tower-rows-"
    chosen = {"metrics": "mae", "tower": "high", "tower.floors": "9", "model.width": "3", "epochs": "2", "seed": "0"}
    assert params(cfg) == chosen
    assert "--config-name=mine" in at_start({"train": SPEC}, None)
    HydraConfig.instance().cfg = None
    assert choices(cfg) == {"metrics": "mae"}
    assert at_start({"train": SPEC}, None).startswith("Data ")


def test_params_are_values_that_can_change_results(composed: Compose) -> None:
    cfg = composed("model=mobilenetv2", "data=cats_dogs", "data.path=/a/photos", "+logging.tags.x=y", "epochs=7")
    found = params(cfg)
    assert {"model": "mobilenetv2", "data": "cats_dogs", "epochs": "7", "seed": "0"}.items() <= found.items()
    assert {"model.alpha", "optimizer.learning_rate", "data.image_size", "runtime.precision"} <= set(found)
    keys = [key for key in found if key != "epochs"]
    assert [key for key in keys if key in NEUTRAL or key.startswith(tuple(f"{name}." for name in NEUTRAL))] == []
    assert [key for key in keys if "_target_" in key or key.startswith(("logging", "hydra", "sweep", "progress"))] == []


def test_choices_are_stored_with_masked_secrets(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("augment=[flip,rot90]")
    set_hydra("runtime.choices.api_key", "hunter22")
    write_snapshot(tmp_path, cfg, SPEC)
    text = (tmp_path / CHOICES).read_text()
    assert "augment: flip+rot90\n" in text
    assert "hunter22" not in text + str(params(cfg))


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, "cnn-digits-"), ("", "cnn-digits-"), ("mine", "mine"), ("it's <b>", "it's <b>"), ("x" * 999, "x" * 250)],
)
def test_name_of_single_run(composed: Compose, name: str | None, expected: str) -> None:
    cfg = composed()
    cfg.logging.run_name = name
    assert run_name(cfg) == expected


@pytest.mark.parametrize(
    "typed",
    [
        ["data=digits", "epochs=3"],
        ["augment=[flip,rot90]", 'data.path="my photos"', "+logging.tags.a='b c'", "seed=${oc.env:SEED,1}"],
        [
            "+logging.tags.x=``` </code><script>alert(1)</script>",
            "+logging.tags.y=a\n\n# b",
            "+logging.tags.z=$HOME `id`",
        ],
    ],
)
def test_command_in_description_repeats_the_run(composed: Compose, typed: list[str]) -> None:
    composed()
    set_hydra("overrides.task", [*typed, "resume=last", "sweep.workers=2"])
    fence, command, after = _block(at_start({"train": SPEC, "test": SPEC}, 2))
    script = f"experiments() {{ printf '%s\\0' \"$@\"; }}; {command}"
    received = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert received.split("\0")[:-1] == ["train", *typed, "runtime.threads=2"]
    assert fence not in command
    counts = "1,205 train, 1,205 test examples, 2 classes"
    assert after == f"Data `` photos/a `b` <b> ``: {counts}, inputs [8, 6, 1] of uint8 in the range 0..255"


def _block(note: str) -> tuple[str, str, str]:
    """Fence, content of the code block at the start, and the text after it."""
    fence, _, rest = note.partition("\n")
    command, _, after = rest.partition(f"\n{fence}\n")
    return fence, command, after.strip()


def test_command_in_description_has_no_secrets(composed: Compose) -> None:
    composed()
    set_hydra("overrides.task", ["+logging.tags.api_key=hunter22", "data.path=s3://me:hunter23@host/x"])
    note = at_start({"train": SPEC}, None)
    assert "hunter2" not in note
    assert "api_key=***" in note


def test_results_are_one_line() -> None:
    line = at_end("val_accuracy", 0.98765, 1, 5, {"test_loss": 0.25, "test_`x`": 1.0}, 61.4)
    assert line == "Best `val_accuracy` 0.9877 in epoch 2 of 5; `test_loss` 0.25, `` test_`x` `` 1, 61 s."
