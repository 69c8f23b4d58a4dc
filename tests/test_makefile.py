"""Targets of the Makefile, mostly by dry runs; nothing is installed, and only temporary folders are changed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = "test test-long test-kill test-launchers test-servers test-fast"
TARGETS = f"help install format check {TESTS} train sweep ui tensorboard bench docs notebook lock audit clean"
RESULTS = ("outputs", "multirun", "mlruns", "mlartifacts", "mlflow.db", "data", ".venv")


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"ARGS", "PORT", "PYTHON"}
    outer = {name: value for name, value in os.environ.items() if name not in variables and not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=folder, env=outer | environment, capture_output=True, text=True, timeout=60, check=False
    )


PYTEST = ".venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A checkout with the stamps of a finished installation, in a folder with a space and an umlaut in its name."""
    folder = tmp_path / "a bläck folder"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-build.lock"):
        shutil.copy(ROOT / name, folder)
    environment = folder / ".venv"
    environment.mkdir()
    (environment / ".locked").touch()
    (environment / ".installed").write_text(f"{folder.resolve()}\n", encoding="utf-8")
    return folder


def test_help_lists_each_target_with_its_comment() -> None:
    lines = make("help").stdout.splitlines()
    assert " ".join(line.split()[0] for line in lines) == TARGETS
    assert all(len(line.split()) > 2 for line in lines)


def test_help_is_the_default_target() -> None:
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train", ".venv/bin/python -m experiments.train experiment=cats_dogs_synthetic epochs=1 loop=tape"),
        ("sweep", ".venv/bin/python -m experiments.train -m epochs=1 loop=tape"),
        (
            "test",
            f'{PYTEST} -m "not long" epochs=1 loop=tape',
        ),
        (
            "test-fast",
            f'{PYTEST} -m "not slow and not long" epochs=1 loop=tape',
        ),
    ],
)
def test_arguments_are_passed_to_the_command(installed: Path, target: str, command: str) -> None:
    assert make("--dry-run", target, "ARGS=epochs=1 loop=tape", folder=installed).stdout.strip() == command


def test_sweep_has_a_default_grid(installed: Path) -> None:
    command = make("--dry-run", "sweep", folder=installed).stdout.strip()
    assert command == ".venv/bin/python -m experiments.train -m data=digits model=mlp,cnn epochs=2"


def test_second_installation_does_nothing(installed: Path) -> None:
    assert make("--question", "install", folder=installed).returncode == 0


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", "requirements-build.lock"])
def test_changed_requirements_are_installed(installed: Path, name: str) -> None:
    os.utime(installed / name, (2**32, 2**32))
    assert make("--question", "install", folder=installed).returncode == 1


def test_moved_checkout_is_installed_again(installed: Path) -> None:
    moved = installed.rename(installed.with_name("moved"))
    assert make("--question", "install", folder=moved).returncode == 1


def test_missing_python_is_reported_in_one_line(installed: Path) -> None:
    shutil.rmtree(installed / ".venv")
    done = make("install", "PYTHON=/nowhere/python3.9", folder=installed)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        'No Python 3.11, 3.12 or 3.13 with its venv module found, tried: "/nowhere/python3.9". '
        "Install one, or name it: make install PYTHON=/path/to/python3.12"
    )


def test_clean_keeps_results(installed: Path) -> None:
    for name in (*RESULTS, "src", "tests", "benchmarks", "build", ".mypy_cache"):
        (installed / name).mkdir(exist_ok=True)
        (installed / name / "kept").touch()
    assert make("clean", folder=installed).returncode == 0
    assert [name for name in RESULTS if not (installed / name / "kept").exists()] == []
    assert not (installed / "build").exists()


def test_tensorboard_shows_runs_sweeps_and_profiles(installed: Path) -> None:
    session = Path("multirun", "a sweep", "0", "tensorboard", "train", "plugins", "profile", "2026_01_01")
    (installed / session).mkdir(parents=True)
    done = make("tensorboard", "PY=echo", "PORT=6007", folder=installed)
    assert done.stdout.splitlines() == [
        "TensorBoard: http://127.0.0.1:6007 (Ctrl+C stops it)",
        "-m tensorboard.main --logdir build/tensorboard --port 6007",
    ]
    board = installed / "build" / "tensorboard"
    assert (board / session).is_dir()
    assert (board / "outputs").resolve() == installed / "outputs"
    assert (board / "profiles" / session).resolve() == installed / session
    assert not (board / "profiles" / session.parent).is_symlink()


def test_ui_starts_no_server_if_the_runs_are_on_one(installed: Path) -> None:
    done = make("ui", folder=installed, MLFLOW_TRACKING_URI="https://user:secret@tracking.test")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["These runs are on a server: open the address in MLFLOW_TRACKING_URI."]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock", "requirements-launchers.lock"])
def test_each_locked_version_has_hashes_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[^ #])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if not re.match(r"\S+==\S+.*\\\n    --hash=sha256:", entry)] == []
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)
