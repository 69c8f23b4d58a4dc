"""Provenance of a run (code, command, versions, machine) with real repositories."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from experiments.records import environment as module
from experiments.records.environment import Provenance, provenance, write_files


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Prüjekt eins"
    folder.mkdir()
    _git(folder, "init", "--initial-branch=trunk")
    (folder / "a.py").write_text("password = 'hunter2'\nx = 1\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def _found(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Provenance:
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", *arguments])
    return provenance()


def test_clean_repository_has_no_changes(repository: Path) -> None:
    found = provenance().git
    assert found is not None
    assert (found.commit, found.branch) == (_git(repository, "rev-parse", "HEAD"), "trunk")
    assert (found.dirty, found.diff, found.untracked) == (False, "", ())


def test_changes_are_saved_with_masked_secrets(repository: Path, tmp_path: Path) -> None:
    _git(repository, "config", "diff.mnemonicPrefix", "true")  # must not change the names of files
    (repository / "a.py").write_text("password = 'geheim77'\nx = 2\n")
    (repository / "neü.py").write_text("y = 1\n")
    found = provenance()
    write_files(found, tmp_path / "config")
    diff = (tmp_path / "config" / "git.diff").read_text()
    assert found.tags()["mlflow.source.git.dirty"] == "true"
    assert "+x = 2" in diff
    assert "diff --git a/a.py b/a.py" in diff
    assert "# untracked: neü.py" in diff
    assert "password = ***" in diff
    assert "geheim77" not in diff
    assert "hunter2" not in diff


def test_subfolder_includes_changes_of_entire_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "sub").mkdir()
    (repository / "new.py").write_text("y = 1\n")
    monkeypatch.chdir(repository / "sub")
    found = provenance().git
    assert found is not None
    assert found.untracked == ("new.py",)


def test_git_does_not_write_its_index(repository: Path) -> None:
    before = (repository / ".git" / "index").stat().st_mtime_ns
    os.utime(repository / "a.py", (1, 1))  # touched but unchanged: git would update its index
    found = provenance().git
    assert found is not None
    assert not found.dirty
    assert (repository / ".git" / "index").stat().st_mtime_ns == before


@pytest.mark.parametrize("missing", ["repository", "commit", "git"])
def test_provenance_without_git(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "environment.py"))
    if missing == "commit":
        _git(tmp_path, "init")
    if missing == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance()
    assert found.git is None
    assert "mlflow.source.git.commit" not in found.tags()
    write_files(found, tmp_path / "config")
    assert not (tmp_path / "config" / "git.diff").exists()


def test_command_is_masked_and_program_is_module(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, "-m", "experiments.train", "data.token=a b", "seed=3")
    assert found.tags()["command"] == "python -m experiments.train 'data.token=***' seed=3"
    assert found.tags()["mlflow.source.name"] == "experiments.train"


def test_program_of_script_is_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/mine.py", "seed=3"])
    found = _found(monkeypatch, "scripts/mine.py", "seed=3")
    assert found.tags()["mlflow.source.name"] == "scripts/mine.py"


def test_tags_contain_machine_and_versions() -> None:
    tags = provenance().tags()
    assert tags["version.numpy"] == version("numpy")
    assert tags["version.python"] == ".".join(map(str, sys.version_info[:3]))
    assert tags["mlflow.source.type"] == "LOCAL"
    assert int(tags["cores"]) >= 1
    assert all(tags[name] for name in ("cpu", "host", "platform", "started", "mlflow.user", "mlflow.source.name"))


def test_environment_file_lists_packages(tmp_path: Path) -> None:
    write_files(provenance(), tmp_path)
    assert f"numpy=={version('numpy')}" in (tmp_path / "environment.txt").read_text().splitlines()


def test_provenance_imports_no_heavy_packages() -> None:
    script = (
        "import sys; from experiments.records.environment import provenance; "
        "import experiments.records.params; provenance().tags(); "
        "print({'tensorflow', 'keras', 'mlflow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
