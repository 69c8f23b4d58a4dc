"""The targets that a record may name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from experiments.config.registry import CONF, register
from experiments.errors import TrackingError
from experiments.records.trust import check_targets, vetted_overrides

OWN = ("own", "own.losses")


@pytest.mark.parametrize(
    "tree",
    [
        {"loss": {"_target_": "keras.losses.SparseCategoricalCrossentropy"}},
        {"model": {"_target_": "experiments.models.mlp.mlp", "x": [{"_target_": "keras.initializers.HeNormal"}]}},
        {"schedule": {"_target_": "keras.optimizers.schedules.CosineDecay"}},
        {"metrics": {"auc": {"_target_": "keras.metrics.AUC"}, "f1": {"_target_": "experiments.metrics.F1Score"}}},
        {"sweep": {"sampler": {"_target_": "optuna.samplers.TPESampler"}}},
        {"loop": {"_target_": "experiments.loops.TapeLoop", "train_step": "experiments.loops.tape.train_step"}},
        {"loss": {"_target_": "own.Loss"}, "loop": {"train_step": "own.losses.step"}},
    ],
    ids=str,
)
def test_known_components_are_allowed(tree: dict[str, Any]) -> None:
    check_targets(tree, "run 1", OWN, stored=True)
    unknown = json.loads(re.sub(r'"(_target_|train_step)": "[^"]+"', r'"\1": "planted.run"', json.dumps(tree)))
    with pytest.raises(TrackingError) as error:
        check_targets(unknown, "run 1", OWN)
    assert "planted.run" in str(error.value)


@pytest.mark.parametrize("name", ["own.os.system", "own.losses.Loss.method", "ownother.Loss", "own", "other.own.Loss"])
def test_module_allows_only_its_own_names(name: str) -> None:
    with pytest.raises(TrackingError) as error:
        check_targets({"loss": {"_target_": name}}, "run 1", OWN)
    assert str(error.value) == (
        f"run 1 names loss._target_='{name}', which is not a built-in component: a record is not executed. "
        "Expected a target of this installation, of conf/ or --config-dir, or of this command line. If you trust it, "
        f"add allow_modules=[{name.rpartition('.')[0] or 'MODULE'}]."
    )


def test_targets_of_command_and_config_folders_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that lies in a config folder by chance is not part of the configuration."""
    for name, text in {
        "own/loss/own.yaml": "_target_: own_parts.Loss",
        "own/outputs/config.yaml": "loss: {_target_: planted.run}",
        "conf/loop/own.yaml": "train_step: 'of_project.step'",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(CONF, version_base="1.3"):
        overrides = [f"hydra.searchpath=[file://{tmp_path}/own]", "model._target_=own_parts.Net"]
        cfg = compose("config", overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    for name in ("own_parts.Loss", "own_parts.Net", "of_project.step"):
        check_targets({"loss": {"_target_": name}}, "run 1")
    with pytest.raises(TrackingError, match="names loss\\._target_='planted\\.run'"):
        check_targets({"loss": {"_target_": "planted.run"}}, "run 1")


LEFT_OUT = ["logging.tracking_uri=http://a", "data.url=http://b", "resume=last", "+sweep.x=1", "hydra.run.dir=/x"]
HARMLESS = ["seed=3", "model=mlp", "~callbacks.x", "data.path=/a/b", "model.weights=runs:/ID", "logging.tags.a=c://d"]
HARMLESS += [
    "+model.x=[a/b,{c: d}]",
    "seed=1,2",
    "metrics=[accuracy,top_k]",
    "optimizer.beta_1=1e-3",
    "checkpoint.name=a.b",
    "data={cache: disk, path: a}",
    "logging.tags={url: a}",
]
REFUSED = [
    "model.x=/a",
    "model.x=[a,/b]",
    "+model.x={a:/b}",
    "model.x='~/a'",
    "model.x=../a",
    "+a@b=c",
    "model.x=s3://a",
]
REFUSED += [
    "model.x=${a}",
    "logging.tags.a=${oc.env:A}",
    "+loss._partial_=true",
    "model.weights=a.keras",
    "model.x='\\\\a'",
    "logging={tracking_uri: databricks}",
    "++logging={run_name: a, tracking_uri : databricks}",
    "logging={tracking_uri: a},{run_name: b}",
    "data={cache_dir: planted, cache: disk}",
    "+data={url: a}",
]


def test_stored_overrides_that_today_decides_are_left_out() -> None:
    assert vetted_overrides([*HARMLESS, *LEFT_OUT], [], "run 1") == HARMLESS
    assert vetted_overrides([*HARMLESS, *LEFT_OUT], LEFT_OUT, "run 1") == [*HARMLESS, *LEFT_OUT]


@pytest.mark.parametrize("override", REFUSED)
def test_stored_override_with_effects_elsewhere_must_be_typed_again(override: str) -> None:
    with pytest.raises(TrackingError) as error:
        vetted_overrides([override], ["model=mlp"], "run 1")
    assert str(error.value) == (
        f"run 1 was started with {override!r}, which contains an interpolation, an address, a place outside of the run "
        "or a key of Hydra or this command: a record must not do that. Expected plain values. If you trust it, "
        "type the same override again in this command."
    )
    assert vetted_overrides([override], [override], "run 1") == [override]
