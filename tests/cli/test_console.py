"""The console script `experiments`, and its shell completion in real shells."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.__main__ import HELPERS
from experiments.config.registry import COMMANDS

PROGRAM = Path(sys.executable).with_name("experiments")
SECONDS = 60


def console(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)


def test_console_script_composes_the_same_config_as_the_module() -> None:
    arguments = ["model=mlp", "seed=3", "--cfg", "job"]
    module = [sys.executable, "-m", "experiments.train", *arguments]
    assert console("train", *arguments).stdout == subprocess.check_output(module, text=True)


def test_usage_lists_all_commands() -> None:
    done = console()
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == [*COMMANDS, *HELPERS]
    assert done.stdout == console("--help").stdout == console("help").stdout


def test_version_is_that_of_the_distribution() -> None:
    assert console("--version").stdout == f"experiments {version('keras-experiments')}\n"


def test_unknown_command_names_the_nearest() -> None:
    done = console("trian")
    assert done.returncode == 1
    assert done.stderr == "error: 'trian' is not a command. Did you mean 'train'?\n"


def test_worker_without_sweep_is_refused() -> None:
    done = console("worker", "sweep.workers=2")
    assert (done.returncode, done.stderr) == (
        1,
        "error: worker needs a sweep. Write experiments worker sweep=NAME, with its folder or its id.\n",
    )


@pytest.mark.parametrize("arguments", [[], ["last"]])
def test_note_needs_a_run_and_a_text(arguments: list[str]) -> None:
    done = console("note", *arguments)
    assert (done.returncode, done.stderr) == (
        1,
        'error: note needs a run and a text. Write experiments note ID "text".\n',
    )


@pytest.mark.slow
def test_note_reaches_the_run(empty_store: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    client = MlflowClient(store)
    run_id = client.create_run(client.create_experiment("a"), tags={"fingerprint.config": "c"}).info.run_id
    text = 'it\'s "good", [really]; $5'
    done = console("note", "last", text, f"logging.tracking_uri={store}", "format=json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["note"] == client.get_run(run_id).data.tags["note"] == text


@pytest.mark.slow
def test_custom_components_of_the_working_folder_are_found() -> None:
    project = Path(__file__).parents[1] / "example_project"
    arguments = ["--config-dir", "conf", "experiment=stripes", "loop.train_step=nowhere.step"]
    done = subprocess.run([PROGRAM, "train", *arguments], cwd=project, capture_output=True, text=True, check=False)
    assert "loop.train_step=nowhere.step" in done.stderr, done.stderr
    helped = [str(PROGRAM), "help", "--config-dir", "conf", "loss"]
    assert "loss=focal" in subprocess.check_output(helped, cwd=project, text=True)


def test_help_of_a_command_is_its_help_option() -> None:
    assert console("help", "doctor").stdout == console("doctor", "--help").stdout


def typed(shell: list[str], line: str, expected: str, folder: Path) -> str:
    """Types `line` in an interactive shell with completion, and returns the output once it contains `expected`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PS1": "READY> "})
    try:
        output = ""
        for text, reply in (
            ('eval "$(experiments completion)"; echo comp""leted\n', "completed"),
            (line, expected),
        ):
            os.write(terminal, text.encode())
            output, deadline = "", time.monotonic() + SECONDS
            while reply not in output:
                assert time.monotonic() < deadline, output
                if select.select([terminal], [], [], 0.1)[0]:
                    output += os.read(terminal, 65536).decode(errors="replace")
        return output
    finally:
        os.close(terminal)  # ends the shell by a hang-up
        os.waitpid(pid, 0)


CASES = [
    ("experiments tra\tmodel=mobilen\t", "experiments train model=mobilenetv2"),
    ("experiments train loop=\t\t\t", "tape"),
    ("experiments train model=mobilenetv2 model.alp\t", "model.alpha="),
    ("experiments help optimizer.learning_r\t", "optimizer.learning_rate="),
    ("experiments evaluate checkp\t", "checkpoint="),
    ("experiments train --conf\t", "--config-dir"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_completion_in_bash(line: str, expected: str, tmp_path: Path) -> None:
    assert expected in typed(["bash", "--norc", "--noprofile", "-i"], line, expected, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_completion_in_zsh(line: str, expected: str, tmp_path: Path) -> None:
    assert expected in typed(["zsh", "-f", "-i"], line, expected, tmp_path)


def test_completion_keeps_the_word_breaks_of_other_programs() -> None:
    script = 'before=$COMP_WORDBREAKS; set -u; eval "$(experiments completion)"; [ "$before" = "$COMP_WORDBREAKS" ]'
    environment = os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
