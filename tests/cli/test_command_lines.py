"""Command lines that users type, with their outcomes, in `command_lines.txt`. Training is replaced by a recorder."""

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments.cli.arguments import rewritten
from experiments.cli.entry import run_command
from experiments.cli.signals import STOPPING
from experiments.cli.status import SILENT
from experiments.sweeps import sweep
from experiments.sweeps.plan import Plan

CASES = [
    tuple(block.split("\n", 1))
    for block in Path(__file__).with_name("command_lines.txt").read_text().strip().removeprefix("$ ").split("\n\n$ ")
]
COMMANDS = ("evaluate", "predict", "compare", "inspect", "doctor")
CONFIGS = {
    "mine.yaml": "defaults:\n  - config\n  - _self_\n\nepochs: 7\n",
    "minebad.yaml": "epochs: 7\n",
    "experiment/defaultsmap.yaml": "# @package _global_\ndefaults:\n  model: mlp\n",
    "experiment/good.yaml": "# @package _global_\ndefaults:\n  - override /model: mlp\n\nepochs: 3\n",
    "experiment/missingopt.yaml": "# @package _global_\ndefaults:\n  - override /model: nope\n",
    "experiment/nooverride.yaml": "# @package _global_\ndefaults:\n  - /model: mlp\n",
    "experiment/nopackage.yaml": "optimizer:\n  learning_rate: 0.1\nepochs: 3\n",
    "experiment/nopackage2.yaml": "defaults:\n  - override /model: mlp\n\nepochs: 3\n",
    "experiment/p.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: sgd\n",
    "experiment/q.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: adam\n",
    "experiment/r.yaml": "# @package _global_\nmonitor:\n  metric: val_loss\n  mode: min\n",
    "experiment/relative.yaml": "# @package _global_\ndefaults:\n  - override model: mlp\n",
    "experiment/typo.yaml": "# @package _global_\noptimizer:\n  lr: 0.1\n",
    "experiment/typo2.yaml": "# @package _global_\nepoch: 3\n",
    "model/badinterp.yaml": "defaults:\n  - cnn\n  - _self_\n\ndropout: ${nope.x}\n",
    "model/bom.yaml": "\ufeffdefaults:\n  - cnn\n  - _self_\n\ndropout: 0.3\n",
    "model/colon.yaml": "_target_: my.model\ndropout: 0.1: 2\n",
    "model/dup.yaml": "_target_: a.b\ndropout: 0.1\ndropout: 0.2\n",
    "model/empty.yaml": "",
    "model/list.yaml": "- a\n- b\n",
    "model/mine.yml": "_target_: experiments.models.cnn\n",
    "model/notarget.yaml": "dropout: 0.1\n",
    "model/pytag.yaml": "_target_: !!python/name:os.system\n",
    "model/quote.yaml": '_target_: "experiments.models.cnn\n',
    "model/tab.yaml": "_target_: my.model\n\tdropout: 0.1\n",
    "model/typokey.yaml": "defaults:\n  - /schema/model/cnn@_here_\n  - _self_\n\n_target_: a.b\ndroput: 0.1\n",
    "model/unclosed.yaml": "defaults:\n  - cnn\n  - _self_\n\ndropout: ${oops\n",
    "model/wrongtype.yaml": "defaults:\n  - /schema/model/cnn@_here_\n  - _self_\n\ndropout: high\n",
}
"""Files of the folder `cfg`, as users write them, with and without mistakes."""


class Recorded(SystemExit):
    """Ends a command when the training would start. `outcome` is its config or the plan of its sweep."""

    def __init__(self, outcome: DictConfig | Plan) -> None:
        super().__init__(0)
        self.outcome = outcome


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in CONFIGS.items():
        path = folder / "cfg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "cfg" / "model" / "latin.yaml").write_bytes('_target_: a.b\nname: "café"\n'.encode("latin-1"))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, configs: Path) -> Iterator[Callable[[Sequence[str]], SystemExit]]:
    monkeypatch.chdir(configs)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("HOME", "HOME")
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    train = import_module("experiments.train")
    for name in ("suppress_startup_logs", "without_gc"):
        monkeypatch.setattr(train, name, nullcontext)
    monkeypatch.setattr(train, "status_line", lambda _: nullcontext(SILENT))
    monkeypatch.setitem(sys.modules, "experiments.runs.run", recorder("run"))
    monkeypatch.setitem(sys.modules, "experiments.cli.report", recorder("report"))
    planned = sweep._planned

    def record_plan(*arguments: Any) -> None:
        raise Recorded(planned(*arguments)[1])

    monkeypatch.setattr(sweep, "_planned", record_plan)

    def run(arguments: Sequence[str]) -> SystemExit:
        command = arguments[0] if arguments[0] in COMMANDS else "train"
        typed = list(arguments[1:] if command != "train" else arguments)
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", [command, *quiet, *typed])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            run_command(import_module(f"experiments.{command}").main, "config" if command == "train" else command)
        return ended.value

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def recorder(name: str) -> ModuleType:
    def record(cfg: DictConfig, *_: object) -> None:
        raise Recorded(cfg)

    module = ModuleType(name)
    setattr(module, name, record)
    return module


def test_table_has_enough_lines() -> None:
    assert len({line for line, _ in CASES}) == len(CASES) >= 150


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_command_line(
    line: str, expected: str, run: Callable[[Sequence[str]], SystemExit], capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run(shlex.split(line))
    assert capfd.readouterr().out == ""
    if not isinstance(ended, Recorded):
        assert str(ended.code).startswith(expected)
        assert "\n" not in str(ended.code)
    elif isinstance(ended.outcome, Plan):
        plan = ended.outcome
        grid = [" ".join(plan.overrides(*job)) for job in plan.jobs()] if plan.settings.sampler == "grid" else []
        assert expected == "jobs: " + " | ".join(grid or [dimension.name for dimension in plan.space])
    else:
        for pair in expected.splitlines() if expected != "accepted" else ():
            key, value = pair.split(": ", 1)
            found = OmegaConf.select(ended.outcome, key)
            plain = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
            assert plain == (value if key.endswith("_target_") else json.loads(value)), key


@pytest.mark.parametrize("value", ["12e456789012", "123456789012", "last", "multirun/2026-11-29/20-30-00-123456"])
def test_id_of_sweep_is_text(value: str) -> None:
    written = f"'{value}'" if value[0] == "1" else value
    assert rewritten(["-m", f"sweep.resume={value}"], "config") == ["-m", f"sweep.resume={written}"]
