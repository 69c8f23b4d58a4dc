"""Which way the arrows point: doors reach the run by a deferred import, leaves reach nothing above them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
DOORS = {"train", "evaluate", "predict", "inspect", "compare", "reproduce", "doctor", "__main__"}
ABOVE_RUN = DOORS | {"doors", "report", "sweeps"}
LEAVES = {"data", "models", "losses", "metrics", "schedules", "loops", "tracking"}
LEAVES |= {"callbacks", "checkpoints", "export", "figures", "progress", "runtime", "serving"}
ABOVE_LEAVES = ABOVE_RUN | {"config", "build", "run"}
LIGHT = DOORS | {"__init__", "doors", "stages", "config", "build", "errors", "params", "provenance", "fingerprint"}
LIGHT |= {"cache_folder", "checkpoint_names", "uploads", "liveness", "run_lock"}
LIGHT_PACKAGES = {"experiments", "hydra", "omegaconf"}
HEAVY_PACKAGES = ("tensorflow", "keras", "mlflow", "numpy", "matplotlib", "sklearn", "PIL")


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


def upward(source: str, part: str) -> list[str]:
    """Imports of `source`, a file of `part`, that point upward, deferred ones too."""
    return [f"line {one.line}: {one.name}" for one in imports(ast.parse(source)) if is_upward(one, part)]


def is_upward(one: Import, part: str) -> bool:
    if part in LEAVES:
        return one.package in {"hydra", "omegaconf"} or one.part in ABOVE_LEAVES
    if part in ABOVE_RUN:
        return False
    return one.part in ABOVE_RUN or (one.part == "run" and part != "run")


def heavy(source: str, seen: set[Path] | None = None) -> set[str]:
    """The packages, other than Hydra's, that importing `source` loads, through files of the project too."""
    seen = set() if seen is None else seen
    now = [one for one in imports(ast.parse(source)) if not one.deferred]
    found = {one.package for one in now} - set(sys.stdlib_module_names) - LIGHT_PACKAGES
    for path in {path for one in now for path in files_of(one.name)} - seen:
        seen.add(path)
        found |= heavy(path.read_text(encoding="utf-8"), seen)
    return found


def files_of(name: str) -> list[Path]:
    """The files that importing `name` runs: its own and the `__init__.py` of each package above it."""
    parts = name.split(".")
    stems = [SOURCE.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
    candidates = [path for stem in stems for path in (stem / "__init__.py", stem.with_suffix(".py"))]
    return [path for path in candidates if path.is_file()]


def waits_for(path: Path) -> set[Path]:
    """The files that are to be there before `path` is, but for packages around it that it takes no name from."""
    now = [files_of(one.name) for one in imports(ast.parse(path.read_text(encoding="utf-8"))) if not one.deferred]
    begun = {folder / "__init__.py" for folder in path.parents}
    return {file for files in now for file in files if file == files[-1] or file not in begun}


FILES = sorted((SOURCE / "experiments").rglob("*.py"))
LIGHT_FILES = [path for path in FILES if part_of(path) in LIGHT]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_import_points_upward(path: Path) -> None:
    assert upward(path.read_text(encoding="utf-8"), part_of(path)) == []


@pytest.mark.parametrize("path", LIGHT_FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_light_files_load_nothing_heavy(path: Path) -> None:
    assert heavy(path.read_text(encoding="utf-8")) == set()


def test_every_file_can_be_the_first_that_is_imported() -> None:
    """Each command begins with another one; the tests have imported most of them before."""
    TopologicalSorter({path: waits_for(path) for path in FILES}).prepare()


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
        ("tracking", "from experiments import build", ["line 1: experiments.config.build"]),
        ("loops", "from experiments.data.base import Splits\nimport keras", []),
        ("run", "from experiments.train import main", ["line 1: experiments.train.main"]),
        ("build", "def f():\n    from experiments.runs.run import run", ["line 2: experiments.runs.run.run"]),
    ],
)
def test_upward_imports_are_found(part: str, source: str, expected: list[str]) -> None:
    assert upward(source, part) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np", {"numpy"}),
        ("import experiments.loops.base", {"keras"}),
        ("from experiments.data import base", {"tensorflow"}),
        ("def main():\n    import numpy", set()),
        ("if TYPE_CHECKING:\n    import keras", set()),
        ("import json, hydra\nfrom experiments.errors import near", set()),
    ],
)
def test_heavy_imports_are_found(source: str, expected: set[str]) -> None:
    assert heavy(source) >= expected
    assert bool(heavy(source)) == bool(expected)


LOADED = """
import runpy, sys
sys.argv[0] = "experiments.train"
try:
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *sorted(set(sys.modules) & set({heavy!r})))
"""


def test_a_sweep_starts_its_workers_before_it_loads_what_takes_seconds() -> None:
    script = "import sys, experiments.sweeps.sweep; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {*HEAVY_PACKAGES, "scipy"} <= {"numpy"}


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"], ["--info", "defaults"]], ids=" ".join)
def test_what_only_reads_the_config_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED.format(heavy=HEAVY_PACKAGES), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
