"""Layout of the package: allowed imports, modules without heavy imports, and the only caller of `instantiate`."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "experiments"
COMMANDS = {"train", "evaluate", "predict", "compare", "inspect", "doctor", "__main__"}
BELOW_RUNS = {"config", "tracking", "cli", "data", "models", "loops", "checkpoints", "records", "files", "errors"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "losses": set(),
    "metrics": {"losses"},
    "schedules": {"errors"},
    "serving": {"errors"},
    "config": {"errors"},
    "tracking": {"errors", "files"},
    "cli": {"config", "errors", "tracking"},
    "data": {"cli", "errors", "files"},
    "models": {"errors", "files", "records"},
    "loops": {"data", "errors"},
    "checkpoints": {"cli", "errors", "files", "loops", "tracking"},
    "records": {"checkpoints", "config", "data", "errors", "files", "tracking"},
    "runs": BELOW_RUNS | {"schedules"},
    "repair": {"checkpoints", "cli", "config", "data", "errors", "files", "tracking"},
    "sweeps": BELOW_RUNS | {"repair", "runs"},
    "__init__": {"data", "loops", "runs"},
    "train": {"cli", "config", "runs", "sweeps"},
    "evaluate": {"cli", "config", "data", "runs"},
    "predict": {"cli", "config", "runs"},
    "compare": {"cli", "comparison", "config"},
    "comparison": {"errors", "records", "tracking"},
    "inspect": {"cli", "config", "data"},
    "doctor": {"cli", "config", "repair", "sweeps"},
    "__main__": {"cli", "config", "errors"},
    "api": {"cli", "comparison", "config", "errors", "runs", "tracking"},
}
"""Package or module of `experiments` -> those that it may import. Imports under TYPE_CHECKING are not checked."""
WITHOUT_HYDRA = {"data", "models", "loops", "losses", "metrics", "schedules", "serving", "tracking", "checkpoints"}
"""Packages and modules that work without Hydra, for example in a notebook."""
LIGHT = {*COMMANDS, "__init__", "config", "errors", "files", "records", "data.cache.listing", "checkpoints.layout"}
LIGHT |= {"checkpoints.uploads", "cli.entry", "cli.startup", "cli.status", "cli.signals", "tracking.liveness"}
LIGHT |= {"tracking.uris", "tracking.redaction", "tracking.journal"}
LIGHT_PACKAGES = {"experiments", "hydra", "omegaconf", "yaml"}
HEAVY_PACKAGES = ("tensorflow", "keras", "mlflow", "numpy", "matplotlib", "sklearn", "PIL")


@dataclass(frozen=True)
class Import:
    """An imported name, e.g. `experiments.data.base.Split`; `deferred` if it runs inside a function."""

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


def lazy_exports(path: Path) -> dict[str, tuple[str, ...]]:
    """Returns `_HOMES` of a package: module -> the names that the package imports from it on first use."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes: dict[str, tuple[str, ...]] = ast.literal_eval(node.value)
            return homes
    return {}


def lazy_homes(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (`experiments.data.indexed`, `experiments.data.pipeline.indexed`) for each lazy export of a package."""
    package = ".".join(path.relative_to(SOURCE).parent.parts)
    for module, names in lazy_exports(path).items():
        yield from ((f"{package}.{name}", f"{module}.{name}") for name in names)


HOMES = dict(home for path in PACKAGE.rglob("__init__.py") for home in lazy_homes(path))


def home(name: str) -> str:
    """Returns the name in the module that defines it, if a package exports it lazily."""
    while name in HOMES:
        name = HOMES[name]
    return name


def imports(node: ast.AST, *, deferred: bool = False) -> Iterator[Import]:
    """Yields the imports below `node`, except those of an `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            origin = "." * child.level + (child.module or "")
            yield from (Import(home(f"{origin}.{alias.name}"), child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(child.orelse, []), deferred=deferred)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, deferred=deferred or inside)


def imports_of(path: Path) -> list[Import]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def module_of(path: Path) -> str:
    """Returns `data.cache.pack` for `src/experiments/data/cache/pack.py`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def part_of(path: Path) -> str:
    return module_of(path).split(".")[0]


def forbidden(part: str, found: Sequence[Import]) -> list[str]:
    """Returns the imports of a file of `part` that its row in ALLOWED does not list."""
    others = (one for one in found if one.part not in ("", part))
    wrong = [one for one in others if (PACKAGE / one.part).is_dir() or (PACKAGE / f"{one.part}.py").is_file()]
    wrong = [one for one in wrong if one.part not in ALLOWED[part]]
    wrong += [one for one in found if part in WITHOUT_HYDRA and one.package in ("hydra", "omegaconf")]
    wrong += [one for one in found if one.name.startswith(".")]  # Relative imports do not name the package.
    return [f"line {one.line}: {one.name}" for one in wrong]


def heavy(found: Iterable[Import], seen: set[Path] | None = None) -> set[str]:
    """Returns the packages, except Hydra's, that these imports load, directly or through files of the project."""
    seen = set() if seen is None else seen
    loaded = [one for one in found if not one.deferred]
    packages = {one.package for one in loaded} - set(sys.stdlib_module_names) - LIGHT_PACKAGES
    for path in {path for one in loaded for path in files_of(one.name)} - seen:
        seen.add(path)
        packages |= heavy(imports_of(path), seen)
    return packages


def files_of(name: str) -> list[Path]:
    """Returns the files that importing `name` runs: its own and the `__init__.py` of each package above it."""
    parts = name.split(".")
    stems = [SOURCE.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
    candidates = [path for stem in stems for path in (stem / "__init__.py", stem.with_suffix(".py"))]
    return [path for path in candidates if path.is_file()]


def imported_files(path: Path) -> set[Path]:
    """Returns the files that `path` imports, also deferred, except parent packages from which it imports no name."""
    loaded = [files_of(one.name) for one in imports_of(path)]
    parents = {folder / "__init__.py" for folder in path.parents}
    return {file for files in loaded for file in files if file == files[-1] or file not in parents}


def is_light(path: Path) -> bool:
    module = module_of(path)
    return any(module == name or module.startswith(f"{name}.") for name in LIGHT)


FILES = sorted(PACKAGE.rglob("*.py"))


def violations(found: Mapping[Path, Iterable[str]]) -> list[str]:
    return [f"{path.relative_to(SOURCE)} {problem}" for path, problems in found.items() for problem in problems]


def test_packages_import_only_allowed_packages() -> None:
    lazy = {path: [Import(name, 0, deferred=True) for _, name in lazy_homes(path)] for path in FILES}
    assert violations({path: forbidden(part_of(path), [*imports_of(path), *lazy[path]]) for path in FILES}) == []
    TopologicalSorter(ALLOWED).prepare()


def test_light_modules_load_no_heavy_packages() -> None:
    light = [path for path in FILES if is_light(path)]
    assert {name for name in LIGHT if not any(module_of(path).startswith(name) for path in light)} == set()
    assert violations({path: sorted(heavy(imports_of(path))) for path in light}) == []


def test_comparison_of_runs_loads_no_tensorflow() -> None:
    found = {package for path in FILES if part_of(path) == "comparison" for package in heavy(imports_of(path))}
    assert found & set(HEAVY_PACKAGES) == {"mlflow"}


def test_only_build_calls_instantiate() -> None:
    assert {module_of(path) for path in FILES if instantiates(ast.parse(path.read_text()))} == {"config.build"}


def instantiates(tree: ast.AST) -> bool:
    """Returns True if code may call Hydra's `instantiate` or `call`, however they are imported."""
    names = {one.name for one in imports(tree)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    taken = {"hydra.utils", "hydra.utils.instantiate", "hydra.utils.call"} & names
    return bool(taken) or "instantiate" in attributes


def test_imports_have_no_cycles() -> None:
    """Deferred imports count too. Each file can be imported first, and read without the files that use it."""
    order = list(TopologicalSorter({path: imported_files(path) for path in FILES}).static_order())
    assert sorted(order) == FILES


def test_module_names_are_unique() -> None:
    shared = ("__init__", "base", "__main__")
    modules = [path.stem for path in FILES if path.stem not in shared and "schemas" not in path.parts]
    packages = [path.parent.name for path in FILES if path.name == "__init__.py"]
    assert [name for name, count in Counter([*modules, *packages]).items() if count > 1] == []


def test_no_package_exports_the_name_of_one_of_its_modules() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            modules = {each.stem for each in path.parent.glob("*.py")} | {each.name for each in path.parent.glob("*/")}
            assert bound_names(path) & modules == set(), path


def bound_names(path: Path) -> set[str]:
    """Returns the names that a package provides: imported, defined, assigned or exported lazily."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {name for exports in lazy_exports(path).values() for name in exports}


def test_private_names_are_not_imported_by_other_modules() -> None:
    taken = {path: [one for one in imports_of(path) if one.package == "experiments"] for path in FILES}
    private = {
        path: [f"line {one.line}: {one.name}" for one in found if one.name.rpartition(".")[2].startswith("_")]
        for path, found in taken.items()
    }
    assert violations(private) == []


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("models", "import hydra", ["line 1: hydra"]),
        ("data", "def f():\n    from omegaconf import DictConfig", ["line 2: omegaconf.DictConfig"]),
        ("losses", "from experiments.config.fields import above", ["line 1: experiments.config.fields.above"]),
        ("tracking", "from experiments.config import build", ["line 1: experiments.config.build"]),
        ("loops", "from experiments.data.base import Splits\nimport keras", []),
        ("runs", "from experiments.train import main", ["line 1: experiments.train.main"]),
        ("config", "def f():\n    from experiments.runs.run import run", ["line 2: experiments.runs.run.run"]),
        ("models", "from experiments import log_scalar", ["line 1: experiments.runs.recording.log_scalar"]),
        ("models", "from ..runs import run", ["line 1: ..runs.run"]),
        ("models", "if not TYPE_CHECKING:\n    import hydra", ["line 2: hydra"]),
        ("models", "if TYPE_CHECKING:\n    pass\nelse:\n    import hydra", ["line 4: hydra"]),
    ],
)
def test_forbidden_imports_are_found(part: str, source: str, expected: list[str]) -> None:
    assert forbidden(part, list(imports(ast.parse(source)))) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from hydra.utils import instantiate", True),
        ("from hydra import utils\nutils.instantiate({})", True),
        ("import hydra.utils as tools", True),
        ("import hydra\nhydra.utils.instantiate({})", True),
        ("import hydra\nhydra.main()", False),
    ],
)
def test_callers_of_instantiate_are_found(source: str, expected: bool) -> None:
    assert instantiates(ast.parse(source)) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np", {"numpy"}),
        ("import experiments.loops.base", {"keras"}),
        ("from experiments.data import pipeline", {"tensorflow"}),
        ("from experiments.data import indexed", {"tensorflow"}),
        ("def main():\n    import numpy", set()),
        ("if TYPE_CHECKING:\n    import keras", set()),
        ("import json, hydra\nfrom experiments.errors import near", set()),
    ],
)
def test_heavy_imports_are_found(source: str, expected: set[str]) -> None:
    found = heavy(imports(ast.parse(source)))
    assert found >= expected
    assert bool(found) == bool(expected)


LOADED = """
import runpy, sys
sys.argv[0] = "experiments.train"
try:
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *sorted(set(sys.modules) & set({heavy!r})))
"""


def test_sweep_module_loads_no_heavy_packages() -> None:
    """A sweep starts its workers before it loads packages that take seconds."""
    script = "import sys, experiments.sweeps.sweep; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {*HEAVY_PACKAGES, "scipy"} <= {"numpy"}


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"], ["--info", "defaults"]], ids=" ".join)
def test_commands_that_only_read_config_load_no_heavy_packages(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED.format(heavy=HEAVY_PACKAGES), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
