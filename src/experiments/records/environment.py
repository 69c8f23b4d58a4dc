"""Provenance of a run: code, command, versions and machine."""

import getpass
import os
import platform
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from experiments import DISTRIBUTION
from experiments.tracking.redaction import mask, mask_command

PACKAGES = ("tensorflow", "keras", "numpy", "mlflow", "hydra-core", "experiments")
GIT_SECONDS = 20


@dataclass(frozen=True)
class GitState:
    """State of a Git repository. `diff` contains uncommitted changes, secrets masked; `untracked` only file names."""

    commit: str
    branch: str
    diff: str
    untracked: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        return bool(self.diff or self.untracked)


@dataclass(frozen=True)
class Provenance:
    """Origin of a run. `git` is None outside of a repository, before its first commit, or if git is not installed."""

    git: GitState | None

    def tags(self) -> dict[str, str]:
        """Returns tags, under MLflow's reserved names if possible, so that its UI shows source, commit and user."""
        named = {
            "mlflow.source.name": _program(),
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            "command": mask_command(_command_line()),
            "cpu": cpu_type(),
            "cores": str(all_cores()),
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "version.python": platform.python_version(),
        }
        if self.git is not None:
            named["mlflow.source.git.commit"] = self.git.commit
            named["mlflow.source.git.branch"] = self.git.branch
            named["mlflow.source.git.dirty"] = str(self.git.dirty).lower()
        return named | {f"version.{name}": number for name, number in package_versions().items()}


DIFF_PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")
"""Options of `git diff`, which a user's settings may have changed."""


def provenance() -> Provenance:
    """Returns the provenance of this process. Imports no heavy packages."""
    return Provenance(_git_state(Path.cwd()) or _git_state(Path(__file__).parent))


def write_files(found: Provenance, folder: Path) -> None:
    """Writes `git.diff` (inside a repository) and `environment.txt` (every installed package) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.txt").write_text(_environment(), encoding="utf-8")
    if found.git is not None:
        untracked = "".join(f"# untracked: {name}\n" for name in found.git.untracked)
        (folder / "git.diff").write_text(untracked + found.git.diff, encoding="utf-8")


def cpu_type() -> str:
    """Returns the model name of the processor, which affects the bits of trained weights."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _command_line() -> list[str]:
    """Returns the command as a user can repeat it, without the paths of the interpreter and of the console script."""
    program, *arguments = sys.orig_argv[1:] or [""]
    return ["experiments", *arguments] if Path(program).name == "experiments" else ["python", program, *arguments]


def _program() -> str:
    """Returns `experiments.train` for `experiments train` and under `python -m`, else the path of the script."""
    arguments = sys.orig_argv
    if _command_line()[0] == "experiments":
        return ".".join(_command_line()[:2])
    if "-m" in arguments[:-1]:
        return arguments[arguments.index("-m") + 1]
    return mask(sys.argv[0])


def package_versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(DISTRIBUTION if package == "experiments" else package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def _environment() -> str:
    # Each access to `metadata` reads and parses a file.
    packages = [found.metadata for found in distributions()]
    lines = {f"{package['Name']}=={package['Version']}" for package in packages if package["Name"]}
    first = f"# Python {platform.python_version()}, {platform.platform()}"
    return "\n".join([first, *sorted(lines, key=str.lower), ""])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user id of a container may have no name
        return str(os.getuid())


def _git_state(folder: Path) -> GitState | None:
    head = _git(folder, "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    if head is None:
        return None
    commit, branch = head.split()
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "--full-name", ":/") or ""
    return GitState(
        commit=commit,
        branch=branch,
        diff=mask(_git(folder, "diff", "--no-color", "--no-ext-diff", *DIFF_PREFIXES, "HEAD") or ""),
        untracked=tuple(mask(name) for name in untracked.splitlines()),
    )


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns the output, or None if git fails or is not installed. Takes no lock, so the user's git is not blocked."""
    # `git diff` writes a refreshed index in spite of GIT_OPTIONAL_LOCKS=0, unless autoRefreshIndex is off.
    settings = ["-c", "core.quotepath=false", "-c", "diff.autoRefreshIndex=false"]
    command = ["git", *settings, "-C", str(folder), *arguments]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def all_cores() -> int:
    """Returns the number of compute threads that TensorFlow uses by default."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
