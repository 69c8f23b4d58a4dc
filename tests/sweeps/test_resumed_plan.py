"""A resumed sweep is planned again from the overrides of its plan file, which another user may have written."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tests.records.hostile import PLANTED, SECRET

from experiments.config import register
from experiments.config.explain import EXPLAINED, one_line
from experiments.config.registry import CONF
from experiments.errors import ConfigError, ExperimentError, TrackingError
from experiments.records.sweep_plan import plan_record
from experiments.sweeps import plan as planning
from experiments.sweeps.plan import Plan, make_plan
from experiments.sweeps.queue import Queue
from experiments.sweeps.stopped_sweep import resumed_plan

TYPED = ("data=digits", "model=mlp,cnn", "seed=1,2", "sweep.exclude=[{model: cnn, seed: 2}]", "sweep.workers=2")
Start = Callable[..., Plan]
PLAN = "plan.json"
"""File of these tests with the record of the plan, as the study contains it."""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Working folder with a config folder of the user, `own`, and a module that must not be imported."""
    register()
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    (tmp_path / "own" / "optimizer" / "slow.yaml").write_text("defaults: [sgd]\nlearning_rate: 0.001\n")
    (tmp_path / "own" / "callbacks").mkdir()
    (tmp_path / "own" / "callbacks" / "mine.yaml").write_text("mine: {_target_: custom.Mine}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_DB_PASSWORD", SECRET)
    yield tmp_path
    GlobalHydra.instance().clear()
    assert "planted" not in sys.modules
    assert not (tmp_path / "executed").exists()


@contextmanager
def command(*typed: str, own: bool = True) -> Iterator[tuple[DictConfig, ConfigLoader]]:
    """Composes the config of `experiments train -m`, without the swept overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        fixed = [each for each in typed if "," not in each or "{" in each or "[" in each]
        fixed += [f"hydra.searchpath=[file://{Path.cwd()}/own]"] if own else []
        cfg = hydra.compose_config("config", fixed, RunMode.MULTIRUN, from_shell=False, with_log_configuration=False)
        HydraConfig.instance().cfg = None  # as when Hydra calls a sweeper
        yield cfg, hydra.config_loader


def start(folder: Path, *typed: str) -> Plan:
    with command(*typed) as (cfg, loader):
        plan = make_plan(typed, cfg, loader)
    folder.mkdir(exist_ok=True)
    record(folder, plan)
    return plan


def record(folder: Path, plan: Plan) -> None:
    (folder / PLAN).write_text(json.dumps(plan_record(plan.id, plan.typed, plan.digests(), folder)))


def stored(folder: Path) -> Any:
    return json.loads((folder / PLAN).read_text())


def resume(folder: Path, *typed: str, own: bool = True) -> Plan:
    with command("sweep.resume=last", *typed, own=own) as (cfg, loader):
        return resumed_plan(folder, stored(folder), ["sweep.resume=last", *typed], cfg, loader)


def refusal(folder: Path, *typed: str, own: bool = True) -> str:
    with pytest.raises(ExperimentError) as error:
        resume(folder, *typed, own=own)
    shown = str(error.value)
    assert "\n" not in shown
    assert SECRET not in shown
    return shown


def overrides_of(plan: Plan) -> list[list[str]]:
    return [plan.overrides(*job) for job in plan.jobs()]


def configs_of(plan: Plan) -> list[dict[str, Any]]:
    """Configs of the jobs without `hydra`, which is that of the current command, and the settings of the sweep."""
    configs: list[Any] = [OmegaConf.to_container(plan.config(*job)) for job in plan.jobs()]
    return [{key: value for key, value in cfg.items() if key not in ("hydra", "sweep")} for cfg in configs]


@pytest.mark.parametrize(
    "typed",
    [
        TYPED,
        ("model=mlp", "optimizer.learning_rate=0.1,0.01", "seed=1,2", "sweep.zip=[[optimizer.learning_rate,seed]]"),
        ("sweep.sampler=tpe", "sweep.n_trials=3", "optimizer.learning_rate=interval(0.1,1)", "model=mlp,cnn"),
        ("sweep.sampler={_target_: optuna.samplers.TPESampler, seed: 1}", "model.dropout=0,0.5"),
        ("augment=[flip,rot90]", "+callbacks.stop={_target_: keras.callbacks.Callback}", "seed=1,2"),
        ("optimizer=slow,adam", "seed=3", "sweep.repeats=2"),
        ("callbacks=mine", "epochs=2,3", "~metrics.accuracy"),
    ],
    ids=lambda typed: typed[0],
)
def test_resumed_sweep_has_jobs_of_its_start(work: Path, typed: tuple[str, ...]) -> None:
    before = start(work / "swept", *typed)
    again = [each for each in typed if each[0] == "+"]  # refused unless typed again
    after = resume(work / "swept", *again)
    assert (after.id, after.space, after.fixed) == (before.id, before.space, before.fixed)
    assert after.objectives == before.objectives
    assert after.digests() == before.digests()
    if before.settings.sampler == "grid":
        assert overrides_of(after) == overrides_of(before)
        assert configs_of(after) == configs_of(before)


def test_changed_settings_apply_and_are_kept(work: Path) -> None:
    start(work / "swept", *TYPED)
    plan = resume(work / "swept", "sweep.workers=3", "sweep.max_retries=7", "allow_modules=[custom]")
    assert (plan.settings.workers, plan.settings.max_retries) == (3, 7)
    assert sum(each.startswith("sweep.workers") for each in plan.typed) == 1
    record(work / "swept", plan)
    again = resume(work / "swept", *TYPED[:2], "sweep.max_retries=8")
    assert (again.settings.workers, again.settings.max_retries) == (3, 8)
    assert overrides_of(again) == overrides_of(plan)


def test_environment_and_command_may_differ(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(work / "swept", *TYPED)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("EXPERIMENTS_CACHE", "other")
    with command("sweep.resume=last", "hydra.sweep.dir=elsewhere", "hydra.verbose=true") as (cfg, loader):
        plan = resumed_plan(work / "swept", stored(work / "swept"), ["sweep.resume=last"], cfg, loader)
    assert plan.logging.experiment_name == "other"
    assert plan.config(*plan.jobs()[0]).hydra.sweep.dir == "elsewhere"


def test_changed_configuration_is_refused(work: Path) -> None:
    start(work / "swept", "optimizer=adam,slow", "model=cnn")
    (work / "own" / "model").mkdir()
    (work / "own" / "model" / "unused.yaml").write_text("a: 1")
    assert len(resume(work / "swept").bases) == 2
    for text in ("defaults: [sgd]\nlearning_rate: 0.1\n", "defaults: [adam]\nlearning_rate: 0.001\n"):
        (work / "own" / "optimizer" / "slow.yaml").write_text(text)
        assert refusal(work / "swept") == (
            f"the sweep in {work / 'swept'} would continue with other jobs: optimizer of optimizer=slow has changed. "
            "Expected the configuration of its start. Restore it in conf/, repeat the overrides of the "
            "start, or start the same command again without sweep.resume, with sweep.reuse=true and in another "
            "hydra.sweep.dir: a grid takes the results of finished jobs from the store, random and tpe draw again."
        )


def test_worker_keeps_configs_of_start_after_edit(work: Path) -> None:
    """Launchers pass the plan to their processes; workers do not compose configs of jobs, and read no plan file."""
    plan = start(work / "swept", "optimizer=adam,slow", "model=cnn", "seed=1,2")
    passed = cloudpickle.dumps(plan)
    (work / "own" / "optimizer" / "slow.yaml").write_text("defaults: [sgd]\nlearning_rate: 0.1\n")
    (work / "swept" / PLAN).unlink()
    found: Plan = cloudpickle.loads(passed)
    assert configs_of(found) == configs_of(plan)
    assert found.config(*found.jobs()[-1]).optimizer.learning_rate == 0.001


def test_other_swept_option_of_changed_yaml_is_named(work: Path) -> None:
    start(work / "swept", "seed=1,2")
    found = stored(work / "swept")
    del found["digests"]["loop of all jobs"]
    (work / "swept" / PLAN).write_text(json.dumps(found))
    assert "would continue with other jobs: loop of all jobs has changed." in refusal(work / "swept")


def test_changed_code_is_reported(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start(work / "swept", *TYPED)
    resume(work / "swept")
    assert caplog.messages == []
    monkeypatch.setattr(planning, "code_digest", lambda cfg: "other")  # noqa: ARG005
    resume(work / "swept")
    assert caplog.messages == ["The code has changed since this sweep began: the remaining jobs run with the new code."]


NOT_BUILT_IN = "which is not a built-in component: a record is not executed"
OUTSIDE = "which contains an interpolation, an address, a place outside of the run or a key of Hydra or this command"
CHANGED = "would continue with other jobs: "
CANNOT_BE_USED = "cannot be used: "
HOSTILE = {
    "target": ("model._target_=planted.run", NOT_BUILT_IN),
    "nested target": ("loss={_target_: experiments.losses.categorical_crossentropy, a: [{_target_: planted.run}]}", ""),
    "new target": ("+callbacks.a._target_=planted.run", NOT_BUILT_IN),
    "new mapping": ("+callbacks.a={_target_: planted.run}", NOT_BUILT_IN),
    "forced target": ("++callbacks.a._target_=planted.run", NOT_BUILT_IN),
    "swept target": ("model._target_=experiments.models.mlp,planted.run", NOT_BUILT_IN),
    "swept choice": ("model._target_=choice(experiments.models.mlp,planted.run)", NOT_BUILT_IN),
    "swept mapping": ("+callbacks.a={_target_: planted.run},{_target_: planted.Loss}", NOT_BUILT_IN),
    "callback of Keras": ("+callbacks.a={_target_: keras.callbacks.CSVLogger, filename: x}", NOT_BUILT_IN),
    "function of Keras": ("data._target_=keras.utils.get_file", NOT_BUILT_IN),
    "train step": ("loop=tape loop.train_step=planted.run", NOT_BUILT_IN),
    "partial": ("+loss._partial_=true", OUTSIDE),
    "sampler": ("sweep.sampler={_target_: planted.run}", NOT_BUILT_IN),
    "pruner": ("sweep.pruner={_target_: planted.run}", NOT_BUILT_IN),
    "partial sampler": ("sweep.sampler={_target_: optuna.samplers.RandomSampler, _partial_: true}", None),
    "arguments of sampler": ("sweep.sampler={_target_: optuna.samplers.RandomSampler, _args_: [1]}", None),
    "storage": ("sweep.storage=sqlite:////tmp/x.db", None),
    "driver": ("sweep.storage=postgresql+planted://127.0.0.1/x", None),
    "secret": ("logging.run_name=${oc.env:MY_DB_PASSWORD}", OUTSIDE),
    "quoted secret": ("logging.run_name='${oc.env:MY_DB_PASSWORD}'", OUTSIDE),
    "swept secret": ("logging.run_name='${oc.env:MY_DB_PASSWORD}',b", OUTSIDE),
    "secret in sweep": ("sweep.storage=${oc.env:MY_DB_PASSWORD}", None),
    "resolver": ('seed="${oc.decode:${oc.env:MY_DB_PASSWORD}}"', OUTSIDE),
    "tracking store": ("logging.tracking_uri=http://127.0.0.1:1", None),
    "nested tracking store": ("logging={tracking_uri: planted}", OUTSIDE),
    "swept tracking store": ("logging={tracking_uri: planted},{tracking_uri: b}", OUTSIDE),
    "nested cache": ("data={cache_dir: planted, cache: disk}", OUTSIDE),
    "cache": ("data.cache_dir=/victim", None),
    "path": ("+callbacks.a={_target_: keras.callbacks.Callback, path: ../victim}", OUTSIDE),
    "option elsewhere": ("model=../../victim/x", OUTSIDE),
    "package": ("optimizer@model=adam", OUTSIDE),
    "launcher": ("hydra.launcher._target_=planted.run", None),
    "launcher option": ("hydra/launcher=joblib", None),
    "Hydra callback": ("+hydra.callbacks.a._target_=planted.run", None),
    "job logging": ("+hydra.job_logging.formatters.a={(): planted.run}", ""),
    "search path": ("hydra.searchpath=[file:///victim]", None),
    "allowed module": ("allow_modules=[planted]", None),
    "allowed and used": ("allow_modules=[planted] +callbacks.a._target_=planted.run", NOT_BUILT_IN),
    "resumed run": ("resume=0123456789abcdef", None),
    "option of Python": ("--config-dir=/victim", CANNOT_BE_USED),
    "no override": ("a b c", CANNOT_BE_USED),
    "unknown key": ("modle=mlp", "'modle' is not a key of this config"),
    "unknown option": ("model=vgg", "model=vgg is not an option"),
    "other jobs": ("seed=range(9)", "other jobs"),
}


def test_hostile_overrides_have_no_effect(work: Path) -> None:
    """The message is None if the override is left out, and empty for any refusal."""
    plan = start(work / "swept", "model=mlp", "seed=1,2")
    record_of_start, expected = stored(work / "swept"), configs_of(plan)
    wrong = {}
    with command("sweep.resume=last") as (cfg, loader):
        for name, (override, message) in HOSTILE.items():
            added = [override] if "{" in override or "a b" in override else override.split()
            (work / "swept" / PLAN).write_text(
                json.dumps(record_of_start | {"typed": [*record_of_start["typed"], *added]})
            )
            try:
                resumed = resumed_plan(work / "swept", stored(work / "swept"), ["sweep.resume=last"], cfg, loader)
                found = None if configs_of(resumed) == expected else "other jobs"
            except EXPLAINED as error:
                found = one_line(error)
                assert SECRET not in found
            if found != message and (found is None or message is None or message not in found):
                wrong[name] = found
    assert wrong == {}


def test_wrongly_typed_plans_are_refused(work: Path) -> None:
    start(work / "swept", "seed=1,2")
    found = stored(work / "swept")
    wrong: list[Any] = [None, [], 3, "model", [["a", "b"]]]
    with command("sweep.resume=last") as (cfg, loader):
        for changes in ({"typed": ["seed=1,2", {"a": 1}]}, *({"digests": each} for each in wrong), {"other": 1}):
            content = {name: value for name, value in found.items() if "other" not in changes or name != "digests"}
            (work / "swept" / PLAN).write_text(json.dumps(content | changes))
            with pytest.raises(TrackingError, match=CANNOT_BE_USED):
                resumed_plan(work / "swept", stored(work / "swept"), ["sweep.resume=last"], cfg, loader)


def test_own_component_resumes_when_named_again(work: Path) -> None:
    (work / "custom.py").write_text("raise ImportError")
    with_path = "+callbacks.mine={_target_: custom.Logger, path: /logs}"
    plain = "+callbacks.other._target_=custom.Other"
    start(work / "swept", "seed=1,2", with_path, plain)
    assert f"{with_path!r}, which contains" in refusal(work / "swept")
    assert refusal(work / "swept", with_path).endswith("If you trust it, add allow_modules=[custom].")
    assert len(resume(work / "swept", with_path, "allow_modules=[custom]").jobs()) == 2
    assert len(resume(work / "swept", with_path, plain).jobs()) == 2


def test_interpolation_resumes_when_typed_again(work: Path) -> None:
    override = "logging.run_name=${oc.env:MY_DB_PASSWORD}"
    start(work / "swept", "seed=1,2", override)
    assert OUTSIDE in refusal(work / "swept")
    plan = resume(work / "swept", override)
    assert SECRET not in (work / "swept" / PLAN).read_text()
    assert plan.config(*plan.jobs()[0]).logging.run_name == SECRET


def test_address_of_start_is_typed_again(work: Path) -> None:
    override = "logging.tracking_uri=http://127.0.0.1:1"
    plan = start(work / "swept", "seed=1,2", override)
    assert f"{CHANGED}logging of all jobs has changed" in refusal(work / "swept")
    assert configs_of(resume(work / "swept", override)) == configs_of(plan)


def test_settings_of_sweep_changed_in_conf_are_refused(work: Path) -> None:
    (work / "own" / "experiment").mkdir()
    recipe = work / "own" / "experiment" / "recipe.yaml"
    recipe.write_text("# @package _global_\nsweep: {repeats: 2, workers: 1}\n")
    start(work / "swept", "experiment=recipe", "epochs=1,2")
    recipe.write_text("# @package _global_\nsweep: {repeats: 2, workers: 3}\n")
    assert resume(work / "swept").settings.workers == 3
    recipe.write_text("# @package _global_\nsweep: {repeats: 3, workers: 3}\n")
    assert f"{CHANGED}sweep of all jobs has changed" in refusal(work / "swept")


def test_other_override_comes_too_late(work: Path) -> None:
    start(work / "swept", *TYPED)
    for override in ("epochs=9", "seed=1,2,3", "sweep.repeats=2", "+sweep.workers=2", "workers_=1"):
        with command("sweep.resume=last") as (cfg, loader), pytest.raises(ConfigError, match="comes too late"):
            resumed_plan(work / "swept", stored(work / "swept"), ["sweep.resume=last", override], cfg, loader)


def test_queue_of_another_plan_is_refused(work: Path) -> None:
    plan = start(work / "swept", *TYPED)
    Queue(work / "swept", plan, new=True).fill()
    assert len(Queue.of_another_start(work / "swept", resume(work / "swept")).jobs()) == 3


def test_weights_that_could_change_between_jobs_are_refused_in_presets(work: Path) -> None:
    (work / "own" / "experiment").mkdir()
    (work / "own" / "experiment" / "warm.yaml").write_text("# @package _global_\nmodel: {weights: runs:/best}\n")
    with pytest.raises(ConfigError, match="runs:/best could change between the jobs of a sweep"):
        start(work / "swept", "experiment=warm", "seed=1,2")
