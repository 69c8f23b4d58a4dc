"""Runs a command on the record of a run, in a process that reports each attempt to execute, connect or write."""

import json
import os
import runpy
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

SECRET = "hunter2secret"
PLANTED = """
from pathlib import Path
Path("executed").write_text("imported")
def run(*arguments, **options):
    Path("executed").write_text("called")
    return run
class Loss:
    __init__ = run
"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTED = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn", "webbrowser.open"}
CONNECTED = {
    "socket.connect",
    "socket.bind",
    "socket.sendto",
    "socket.getaddrinfo",
    "urllib.Request",
    "smtplib.connect",
}
UNPICKLED = {"pickle.find_class", "code.__new__", "ctypes.dlopen"}
CHANGED = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
CHANGED |= {"os.utime", "os.chown", "shutil.rmtree", "shutil.move"}


def guarded(door: str, words: Sequence[str], work: str, report: str) -> None:
    """Runs `python -m experiments.DOOR WORDS` in `work`. Writes forbidden events to the file `report`."""
    os.chdir(work)
    tempfile.tempdir = None
    sys.path[0] = work
    module = f"experiments.{door}"
    sys.orig_argv = [sys.executable, "-m", module, *words]
    sys.argv = [door, *words]
    sys.modules.pop(module, None)
    sys.addaudithook(_hook(work, os.open(report, os.O_WRONLY | os.O_APPEND | os.O_CREAT)))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def guarded_weights(source: str, work: str, report: str) -> None:
    """Loads `model.weights` of a small network, without building a large one."""
    import keras
    import mlflow

    from experiments.errors import ExperimentError
    from experiments.models import mlp  # noqa: F401 - registers the class of the saved model
    from experiments.models.weights import load_weights

    os.chdir(work)
    tempfile.tempdir = None
    sys.path[0] = work
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    sys.addaudithook(_hook(work, os.open(report, os.O_WRONLY | os.O_APPEND | os.O_CREAT)))
    try:
        load_weights(source, network=model, model=model, architecture="small")
    except ExperimentError as error:
        sys.exit(f"error: {error}")


def _hook(work: str, report: int) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_forbidden(event, arguments, work):
            os.write(report, f"{event} {arguments!r:.300}\n".encode("utf-8", "replace"))
            raise PermissionError(f"{event} is forbidden here")

    return hook


def _is_forbidden(event: str, arguments: tuple[Any, ...], work: str) -> bool:
    if event == "import":
        return str(arguments[0]).partition(".")[0] == "planted"
    if event == "open":
        path, _, flags = arguments
        return bool(flags & WRITING) and not isinstance(path, int) and not _is_inside(path, work)
    if event in CHANGED:
        return not all(_is_inside(path, work) for path in arguments if isinstance(path, str | bytes | os.PathLike))
    return event in STARTED | CONNECTED | UNPICKLED


def _is_inside(path: Any, work: str) -> bool:
    # Not resolved by pathlib, whose calls would be events again.
    real = os.path.realpath(os.fsdecode(path))
    return real.startswith((f"{work}/", "/dev/null", "/dev/pts/", "/dev/tty")) or real == work


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Record:
    """A copy of a finished run, with its store and photos, for a test to change. `victim` must stay as it is."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.work, self.victim, self.report = folder / "work", folder / "victim", folder / "report.txt"
        shutil.copytree(base, self.work, symlinks=True)
        self._move_store(str(base))
        (self.work / "planted.py").write_text(PLANTED)
        (self.victim / "data").mkdir(parents=True)
        for name in ("notes.txt", "data/drawing.json", "ckpt-1.index", "ckpt-1.data-00000-of-00001", "ckpt-1.json.tmp"):
            (self.victim / name).write_text(json.dumps({"name": name}))
        for name in ("tmp", "home", "cache"):
            (self.work / name).mkdir()
        self._before = self._state()

    def _move_store(self, base: str) -> None:
        with sqlite3.connect(self.work / "mlflow.db") as store:
            places = {"experiments": "artifact_location", "logged_models": "artifact_location", "runs": "artifact_uri"}
            for table, column in {**places, "tags": "value"}.items():
                store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (base, str(self.work)))
            (self.run_id,) = store.execute("SELECT run_uuid FROM runs").fetchone()
        store.close()
        journal = self.output / "journal.jsonl"
        journal.write_text(journal.read_text().replace(base, str(self.work)))
        (self.output / "journal.offset").write_text(f"{journal.stat().st_size:020}")

    @property
    def output(self) -> Path:
        return self.work / "out"

    @property
    def artifacts(self) -> Path:
        return next((self.work / "mlartifacts").rglob(f"{self.run_id}/artifacts"))

    @property
    def environment(self) -> dict[str, str]:
        folders = {"TMPDIR": "tmp", "HOME": "home", "EXPERIMENTS_CACHE": "cache"}
        return {"MY_DB_PASSWORD": SECRET, **{name: str(self.work / folder) for name, folder in folders.items()}}

    def write(self, name: str, content: str | bytes) -> None:
        """Replaces a file of the run in the store and in the run folder."""
        for folder in (self.artifacts, self.output):
            path = folder / name
            path.unlink(missing_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def text(self, name: str) -> str:
        return (self.artifacts / name).read_text()

    def config(self, changes: Mapping[str, Any]) -> None:
        """Sets keys of config.yaml: sections, or values by dotted key."""
        tree = yaml.safe_load(self.text("config/config.yaml"))
        for key, value in self.placed(changes).items():
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node[parent]
            node[last] = value
        self.write("config/config.yaml", yaml.safe_dump(tree))

    def data(self, **changes: Any) -> None:
        self.write("config/data.json", json.dumps(json.loads(self.text("config/data.json")) | changes))

    def overrides(self, *added: str) -> None:
        stored = yaml.safe_load(self.text("config/overrides.yaml"))
        self.write("config/overrides.yaml", yaml.safe_dump([*stored, *map(self.placed, added)]))

    def tag(self, name: str, value: str) -> None:
        with sqlite3.connect(self.work / "mlflow.db") as store:
            store.execute("DELETE FROM tags WHERE key = ? AND run_uuid = ?", (name, self.run_id))
            store.execute("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", (name, value, self.run_id))
        store.close()

    def tags(self, **tags: str) -> None:
        for name, value in tags.items():
            self.tag(name, value)

    def name(self, name: str) -> None:
        with sqlite3.connect(self.work / "mlflow.db") as store:
            store.execute("UPDATE runs SET name = ?", (name,))
            store.execute("UPDATE tags SET value = ? WHERE key = 'mlflow.runName'", (name,))
        store.close()

    def place(self, uri: str) -> None:
        """Sets the address at which the store keeps the files of the run."""
        with sqlite3.connect(self.work / "mlflow.db") as store:
            store.execute("UPDATE runs SET artifact_uri = ?", (self.placed(uri),))
        store.close()

    def status(self, status: str) -> None:
        with sqlite3.connect(self.work / "mlflow.db") as store:
            store.execute("UPDATE runs SET status = ?", (status,))
        store.close()

    def journal(self, *lines: str) -> None:
        """Appends lines to the journal, which are then not delivered yet."""
        with (self.output / "journal.jsonl").open("a") as file:
            file.writelines(f"{self.placed(line)}\n" for line in lines)

    def placed(self, value: Any) -> Any:
        """Returns `value` with VICTIM and RUN replaced by the path of the victim and the id of the run."""
        if isinstance(value, str):
            return value.replace("VICTIM", str(self.victim)).replace("RUN", self.run_id)
        if isinstance(value, Mapping):
            return {key: self.placed(item) for key, item in value.items()}
        return [self.placed(item) for item in value] if isinstance(value, list) else value

    def run(self, trainings: Any, door: str, *words: str) -> Outcome:
        arguments = (guarded, door, list(map(self.placed, words)), str(self.work), str(self.report))
        return self._called(trainings, *arguments)

    def load_weights(self, trainings: Any, source: str) -> Outcome:
        return self._called(trainings, guarded_weights, self.placed(source), str(self.work), str(self.report))

    def _called(self, trainings: Any, *arguments: Any) -> Outcome:
        with trainings.calling(*arguments, environment=self.environment) as process:
            return Outcome(process.wait(), process.stdout, process.stderr)

    def _state(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.victim.rglob("*")) if path.is_file()}

    def assert_harmless(self, outcome: Outcome) -> None:
        """Nothing was executed, written elsewhere or sent, and no secret or traceback was shown."""
        shown = outcome.stdout + outcome.stderr
        assert not self.report.exists() or self.report.read_text() == "", shown
        assert not (self.work / "executed").exists(), shown
        assert self._state() == self._before, shown
        assert SECRET not in shown
        assert "Traceback" not in shown, shown

    def assert_refused(self, outcome: Outcome, *expected: str) -> None:
        self.assert_harmless(outcome)
        assert outcome.status == 1, outcome
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, outcome.stderr
        assert outcome.stderr.splitlines()[-1] == errors[0], outcome.stderr
        for part in expected:
            assert self.placed(part) in errors[0]
