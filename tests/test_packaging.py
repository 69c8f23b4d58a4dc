"""The wheel: what it carries, and that it works from any folder without the checkout."""

import os
import site
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONF = [path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")]


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `command` in `folder` as a newcomer would: no variable points at the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def succeed(*command: str | Path, folder: Path) -> str:
    done = run(*command, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return next(folder.glob("keras_experiments-*.whl"))


@pytest.fixture(scope="session")
def newcomer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment: the package from its wheel, what it depends on borrowed from this one."""
    folder = tmp_path_factory.mktemp("neu und leer")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    packages = Path(succeed(python, "-c", "import site; print(site.getsitepackages()[0])", folder=folder).strip())
    # A plain line adds a folder without reading the .pth files in it: the editable checkout stays out.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    succeed(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    return python


def test_at_most_twelve_dependencies_at_run_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(project["dependencies"]) <= 12


@pytest.mark.slow
def test_the_wheel_carries_the_configs_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"experiments/conf/{name}" for name in CONF} <= names
    assert {"experiments/py.typed", "experiments/train.py"} <= names
    outside = {name for name in names if name.split("/")[0] not in {"experiments", "keras_experiments-0.3.0.dist-info"}}
    assert outside == {"hydra_plugins/experiments_sweeper.py"}


@pytest.mark.slow
def test_the_wheel_composes_its_config_in_an_empty_folder(newcomer: Path, tmp_path: Path) -> None:
    code = "import experiments; print(experiments.__file__)"
    assert Path(succeed(newcomer, "-c", code, folder=tmp_path).strip()).is_relative_to(newcomer.parents[1])
    composed = succeed(newcomer, "-m", "experiments.train", "--cfg", "job", "data=digits", folder=tmp_path)
    assert "seed: 0" in composed.splitlines()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_folder(newcomer: Path, tmp_path: Path) -> None:
    command = ("-m", "experiments.train", "data=digits", "model=cnn", "epochs=1")
    assert "run id" in succeed(newcomer, *command, folder=tmp_path).lower()
    assert {path.name for path in tmp_path.iterdir()} >= {"outputs", "mlflow.db"}
