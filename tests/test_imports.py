"""Which way the arrows point: doors reach the run by a deferred import, leaves reach nothing above them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
DOORS = {"train", "evaluate", "predict", "inspect", "compare", "reproduce", "doctor", "__main__"}
LIGHT = DOORS | {"__init__", "config", "build", "errors", "params", "provenance", "fingerprint"}
LIGHT_PACKAGES = {"experiments", "hydra", "omegaconf"}
HEAVY_PACKAGES = ("tensorflow", "keras", "mlflow", "numpy", "matplotlib", "sklearn", "PIL")
ABOVE_LEAVES = DOORS | {"config", "build", "run"}
NOT_LEAVES = LIGHT | {"run", "sweeps"}


@dataclass(frozen=True)
class Import:
    """One imported name, e.g. `experiments.data.base.Split`; `deferred` when it runs inside a function."""

    name: str
    line: int
    deferred: bool

    @property
    def package(self) -> str:
        return self.name.split(".")[0]

    @property
    def part(self) -> str:
        """The file or folder of `experiments` that is imported: `data` for `experiments.data.base.Split`."""
        names = self.name.split(".")
        return names[1] if names[0] == "experiments" and len(names) > 1 else ""


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, *, deferred: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, deferred) for alias in child.names)
        elif not is_for_types_only(child):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, deferred=deferred or inside)


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE / "experiments").parts[0].removesuffix(".py")


def violations(source: str, part: str) -> list[str]:
    """Imports of `source`, a file of `part`, that point upward or load what a light module must not load."""
    found = list(imports(ast.parse(source)))
    wrong = [one for one in found if is_heavy_in_light(one, part) or is_upward(one, part)]
    return [f"line {one.line}: {one.name}" for one in wrong]


def is_heavy_in_light(one: Import, part: str) -> bool:
    if part not in LIGHT or one.deferred:
        return False
    standard = one.package in sys.stdlib_module_names
    return not standard and (one.package not in LIGHT_PACKAGES or (one.part != "" and one.part not in LIGHT))


def is_upward(one: Import, part: str) -> bool:
    if part not in NOT_LEAVES:
        return one.package in {"hydra", "omegaconf"} or one.part in ABOVE_LEAVES
    if part in {"run", "build", "config", "errors", "params", "provenance", "fingerprint"}:
        return one.part in DOORS or (one.part == "run" and part != "run")
    return False


FILES = sorted((SOURCE / "experiments").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_import_points_upward(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), part_of(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_only_build_instantiates(path: Path) -> None:
    names = [one.name for one in imports(ast.parse(path.read_text(encoding="utf-8")))]
    assert part_of(path) == "build" or not {"hydra.utils.instantiate", "hydra.utils.call"} & set(names)


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("models", "import hydra", ["line 1: hydra"]),
        ("data", "def f():\n    from omegaconf import DictConfig", ["line 2: omegaconf.DictConfig"]),
        ("losses", "from experiments.config.fields import above", ["line 1: experiments.config.fields.above"]),
        ("tracking", "from experiments import build", ["line 1: experiments.build"]),
        ("loops", "from experiments.data.base import Splits\nimport keras", []),
        ("train", "import numpy as np", ["line 1: numpy"]),
        ("train", "from experiments.run import run", ["line 1: experiments.run.run"]),
        ("train", "def main():\n    from experiments.run import run", []),
        ("config", "from experiments.data.base import Split", ["line 1: experiments.data.base.Split"]),
        ("config", "if TYPE_CHECKING:\n    from experiments.data.base import Split", []),
        ("run", "from experiments.train import main", ["line 1: experiments.train.main"]),
        ("build", "def f():\n    from experiments.run import run", ["line 2: experiments.run.run"]),
    ],
)
def test_violations_are_found(part: str, source: str, expected: list[str]) -> None:
    assert violations(source, part) == expected


LOADED = """
import runpy, sys
sys.argv[0] = "experiments.train"
try:
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *sorted(set(sys.modules) & set({heavy!r})))
"""


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"], ["--info", "defaults"]], ids=" ".join)
def test_what_only_reads_the_config_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED.format(heavy=HEAVY_PACKAGES), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
