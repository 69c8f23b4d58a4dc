"""Key `on_end`: when its command is executed, and with which result."""

import json
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from experiments.cli import on_end as module
from experiments.cli.on_end import on_end
from experiments.errors import ConfigError, DataError, StoppedRun
from experiments.records.fingerprint import comparable
from experiments.records.trust import vetted_overrides
from experiments.tracking.journal import Journal
from experiments.tracking.redaction import MASK, mask


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], str]:
    """Returns a function that returns a command for Python code."""

    def command(code: str) -> str:
        (tmp_path / "command.py").write_text(f"import sys, time\n{code}\n")
        return f"'{sys.executable}' -S '{tmp_path / 'command.py'}' 'an argument' $HOME"

    return command


@pytest.fixture
def received(command: Callable[[str], str], tmp_path: Path) -> tuple[str, Callable[[], Any]]:
    """Returns a command that keeps its input, and a function that reads it."""
    path = tmp_path / "received"
    keep = f"open({str(path)!r}, 'x').write(sys.stdin.read() + '|'.join(sys.argv[1:]))"

    def read() -> Any:
        text, arguments = path.read_text().rsplit("}\n", 1)  # a line, so that results can be appended to a file
        assert arguments == "an argument|$HOME"  # there is no shell
        return json.loads(text + "}", parse_constant=pytest.fail)

    return command(keep), read


RESULT = {"run_id": None, "monitored": None, "objective": None, "metrics": None, "page": None}


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (None, "FINISHED", None),
        (DataError("no images"), "FAILED", "DataError: no images"),
        (RuntimeError("password=hunter2secret"), "FAILED", f"RuntimeError: password={MASK}"),
        (StoppedRun("pruned"), "KILLED", "StoppedRun: pruned"),
        (SystemExit(143), "KILLED", "SystemExit: 143"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
    ],
)
def test_command_receives_the_result(
    error: BaseException | None,
    status: str,
    text: str | None,
    received: tuple[str, Callable[[], Any]],
    tmp_path: Path,
) -> None:
    try:
        with on_end(received[0], tmp_path):
            if error is not None:
                raise error
    except BaseException as caught:
        assert caught is error  # noqa: PT017 - any exception
    assert received[1]() == {**RESULT, "status": status, "output_dir": str(tmp_path), "error": text}


def test_added_results_are_valid_json(received: tuple[str, Callable[[], Any]], tmp_path: Path) -> None:
    hostile = {"a\x1b\"}'é👩‍🔬": 0.5, "nan": float("nan"), "inf": float("-inf")}
    with on_end(received[0], tmp_path) as result:
        result |= {"metrics": hostile, "objective": 0.25, "output_dir": tmp_path / "ö"}
    found = received[1]()
    assert found["metrics"] == {**hostile, "nan": None, "inf": None}
    assert (found["objective"], found["output_dir"]) == (0.25, str(tmp_path / "ö"))


@pytest.mark.parametrize("resumed", [False, True])
def test_failed_run_is_named(resumed: bool, received: tuple[str, Callable[[], Any]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    journal = Journal(folder)
    journal.open()
    journal.append("start", run_id="abc", tracking_uri="sqlite:///mlflow.db")
    journal.close()
    started = folder
    if resumed:
        started = tmp_path / "again"
        started.mkdir()
        (started / "resumed").symlink_to(folder)
    with pytest.raises(DataError), on_end(received[0], started):
        raise DataError("late")
    assert received[1]()["run_id"] == "abc"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(3)", "returned non-zero exit status 3"),
        ("time.sleep(60)", "timed out after 0.5 seconds"),
        ("sys.stdin.close(); sys.exit(1)", "returned non-zero exit status 1"),
    ],
)
def test_failing_command_changes_nothing(
    code: str,
    reason: str,
    command: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.5 if "sleep" in code else 20)
    caplog.set_level(logging.WARNING)
    with on_end(f"{command(code)} --token=hunter2secret", tmp_path) as result:
        result["metrics"] = {f"name{number}": 0.5 for number in range(20_000)}  # more than a pipe holds
    (message,) = caplog.messages
    assert message.startswith(f"on_end={sys.executable} -S ")
    assert message.endswith(f" '--token=***' failed: {reason}. The result is not affected.")


@pytest.mark.parametrize("value", ["no-such-program -x", "'unclosed", " ", ""])
def test_missing_program_is_refused_before_the_run(value: str, tmp_path: Path) -> None:
    message = f"on_end={value} is not a command: expected a program and arguments. Change on_end."
    with pytest.raises(ConfigError) as error, on_end(value, tmp_path):
        pytest.fail("the block started")
    assert str(error.value) == message


class Finished(NamedTuple):
    run_id: str = "abc"
    objective: float = 0.75


@pytest.mark.parametrize("error", [None, DataError("late"), SystemExit(143)])
def test_train_executes_the_command_once(
    error: BaseException | None,
    received: tuple[str, Callable[[], Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable[..., None],
) -> None:
    trained(error, received[0])
    found = received[1]()
    assert found["status"] == ("FINISHED" if error is None else "FAILED" if isinstance(error, DataError) else "KILLED")
    assert found["objective"] == (0.75 if error is None else None)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that runs `train` with a run that ends at once."""
    from contextlib import nullcontext, suppress
    from types import ModuleType

    from hydra.core.global_hydra import GlobalHydra

    from experiments.cli.arguments import rewritten

    def train(error: BaseException | None, command: str) -> None:
        def run(*_: object) -> Finished:
            if error is not None:
                raise error
            return Finished()

        for name, value in (("run", run), ("report", lambda *_: None)):
            replaced = ModuleType(name)
            setattr(replaced, name, value)
            place = f"experiments.{'runs' if name == 'run' else 'cli'}.{name}"
            monkeypatch.setitem(sys.modules, place, replaced)
        main = import_module("experiments.train")
        for name in ("suppress_startup_logs", "without_gc"):
            monkeypatch.setattr(main, name, nullcontext)
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", f"hydra.run.dir={tmp_path}/out"]
        monkeypatch.setattr(sys, "argv", ["train", *quiet, *rewritten([f"on_end={command}"], "config")])
        GlobalHydra.instance().clear()
        with suppress(SystemExit):
            main.main()

    return train


def test_command_of_a_record_is_not_executed() -> None:
    assert vetted_overrides(["on_end=rm -rf /", "seed=1"], [], "run x") == ["seed=1"]


def test_command_is_not_part_of_the_fingerprint(composed: Callable[..., Any]) -> None:
    cfg = composed("model=mlp")
    other = composed("model=mlp", "on_end=notify")
    assert (cfg.on_end, other.on_end) == (None, "notify")
    assert comparable(cfg) == comparable(other)


@pytest.mark.parametrize(
    "address",
    ["https://hooks.slack.com/services/T0/B0/abcdef", "https://discord.com/api/webhooks/123/abc-def_G"],
)
def test_addresses_of_webhooks_are_masked(address: str) -> None:
    assert mask(f"curl -d @- '{address}' -x").replace("https://", "") == f"curl -d @- '{MASK}' -x"
