"""A run from elsewhere is only data: no command executes, writes elsewhere or connects for what a record says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import paint
from tests.records.hostile import Record
from tests.records.hostile_configs import CONFIGS, EVALUATED, LITERALS, Change
from tests.records.hostile_runs import (
    ADDRESSES,
    COMMITS,
    DESCRIPTIONS,
    FOLDERS,
    IGNORED_OVERRIDES,
    REJECTED,
    RESUMED,
    STATES,
    UNDELIVERED,
    broken_images,
    checkpoint_list,
    hostile_folders,
    pickled_arrays,
)
from tests.trainings import Trainings

pytestmark = pytest.mark.slow
EVALUATE = ("format=csv",)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings) -> Path:
    """Folder of a finished run on painted images, with its store."""
    folder = tmp_path_factory.mktemp("hostile") / "base"
    folder.mkdir()
    paint(folder / "photos" / "train", 4)
    paint(folder / "photos" / "valid", 2, height=19)
    words = ["data=image_folder", "data.path=photos", "data.image_size=[8,8]", "data.batch_size=4", "data.cache=none"]
    words += ["model=mlp", "epochs=1", "checkpoint.every_epoch=true", "logging.log_figures=false", "hydra.run.dir=out"]
    done = trainings.run(folder, *words, "progress=none", "logging.system_metrics=false")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def record(base: Path, tmp_path: Path) -> Record:
    return Record(base, tmp_path)


def some(changes: Sequence[Change], every: int = 10) -> list[Any]:
    """Returns the parameters of a test. Only a part of them is run by default, because each one starts a process."""
    return [
        pytest.param(each, id=each.name, marks=[pytest.mark.long] if number % every else [])
        for number, each in enumerate(changes)
    ]


def test_honest_run_is_evaluated_and_predicted(record: Record, trainings: Trainings) -> None:
    for door, *words in (("evaluate", *EVALUATE), ("predict", "path=photos/valid", "format=csv")):
        outcome = record.run(trainings, door, *words)
        record.assert_harmless(outcome)
        assert outcome.status == 0, outcome.stderr


@pytest.mark.parametrize("change", some([*CONFIGS, *EVALUATED, *ADDRESSES]))
def test_hostile_config_is_refused_by_evaluate(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    record.assert_refused(record.run(trainings, "evaluate", *EVALUATE), *change.expected)


@pytest.mark.parametrize("change", some(CONFIGS[::6]))
def test_hostile_config_is_refused_by_predict(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    outcome = record.run(trainings, "predict", "path=photos/valid")
    record.assert_refused(outcome, *change.expected)


@pytest.mark.parametrize("change", some(LITERALS))
def test_text_of_record_is_literal(record: Record, trainings: Trainings, change: Change) -> None:
    """What is not built from the record is ignored, whatever it says."""
    change.apply(record)
    outcome = record.run(trainings, "evaluate", *EVALUATE)
    record.assert_harmless(outcome)
    assert outcome.status == 0, outcome.stderr


RESUME = ("resume=RUN", "epochs=2", "resume_allow=[epochs]", "progress=none", "logging.system_metrics=false")


@pytest.mark.parametrize("change", some([*RESUMED, *ADDRESSES, *FOLDERS]))
def test_hostile_record_is_not_resumed(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    record.assert_refused(record.run(trainings, "train", *RESUME), *change.expected)


def test_honest_run_is_resumed(record: Record, trainings: Trainings) -> None:
    checkpoint_list(record)
    outcome = record.run(trainings, "train", *RESUME)
    record.assert_harmless(outcome)
    assert outcome.status == 0, outcome.stderr


@pytest.mark.parametrize("change", some(IGNORED_OVERRIDES))
def test_addresses_of_record_are_ignored_when_resuming(record: Record, trainings: Trainings, change: Change) -> None:
    """Whether the run then resumes depends on what else has changed, which is said in one line."""
    change.apply(record)
    outcome = record.run(trainings, "train", *RESUME)
    record.assert_harmless(outcome)
    if outcome.status:
        record.assert_refused(outcome)


@pytest.mark.parametrize("command", ["evaluate", "resume"])
@pytest.mark.parametrize("change", some(COMMITS))
def test_corrupt_checkpoint_is_one_line(record: Record, trainings: Trainings, change: Change, command: str) -> None:
    change.apply(record)
    door, *words = ("evaluate", *EVALUATE) if command == "evaluate" else ("train", *RESUME)
    outcome = record.run(trainings, door, *words)
    record.assert_harmless(outcome)
    if outcome.status:
        record.assert_refused(outcome)


@pytest.mark.parametrize("change", some(STATES))
def test_invalid_state_of_checkpoint_is_not_resumed(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    record.assert_refused(record.run(trainings, "train", *RESUME), *change.expected)


@pytest.mark.parametrize("change", some(REJECTED))
def test_hostile_events_are_kept_and_not_sent(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    outcome = record.run(trainings, "doctor", "sync", "folders=[out]")
    record.assert_harmless(outcome)
    rejected = record.output / "journal.rejected.jsonl"
    kept = rejected.exists() and rejected.read_text().count("\n") == 1
    assert kept or outcome.stdout.count("failed: ") == 1, outcome
    assert not (record.artifacts / "stolen").exists()
    assert "notes.txt" not in {path.name for path in record.artifacts.rglob("*")}


@pytest.mark.parametrize("change", some(UNDELIVERED))
def test_hostile_journal_is_not_delivered(record: Record, trainings: Trainings, change: Change) -> None:
    change.apply(record)
    outcome = record.run(trainings, "doctor", "sync", "folders=[out]", "format=json")
    record.assert_harmless(outcome)
    assert not list(record.victim.glob("x.db*"))
    for part in change.expected:
        assert part in outcome.stdout


@pytest.mark.parametrize("fix", ["true", "false"])
def test_doctor_repairs_only_in_folder_of_run(record: Record, trainings: Trainings, fix: str) -> None:
    hostile_folders(record)
    outcome = record.run(trainings, "doctor", f"fix={fix}", "folders=[out]")
    record.assert_harmless(outcome)
    assert not (record.victim / "run.lock").exists()


@pytest.mark.parametrize("change", some(DESCRIPTIONS))
def test_saved_model_is_not_read(record: Record, trainings: Trainings, change: Change) -> None:
    """Weights are loaded from the best checkpoint, which does not fit the network of the test."""
    change.apply(record)
    record.assert_refused(record.load_weights(trainings, "runs:/RUN"), "arrays of")


def test_inspect_reads_files_as_data(record: Record, trainings: Trainings) -> None:
    broken_images(record)
    outcome = record.run(trainings, "inspect", "data=image_folder", "data.path=photos", "output=page.html")
    record.assert_harmless(outcome)
    pickled_arrays(record.work / "arrays.npz")
    outcome = record.run(trainings, "inspect", "data=npz", "data.path=arrays.npz")
    record.assert_refused(outcome, "an array of Python objects")


def test_component_of_user_is_allowed_by_module(record: Record, trainings: Trainings) -> None:
    own = "import keras\nclass Loss(keras.losses.SparseCategoricalCrossentropy):\n    pass\n"
    (record.work / "own_loss.py").write_text(own)
    record.config({"loss": {"_target_": "own_loss.Loss", "from_logits": True}, "metrics": {}})
    record.assert_refused(record.run(trainings, "evaluate", *EVALUATE), "add allow_modules=[own_loss].")
    outcome = record.run(trainings, "evaluate", *EVALUATE, "allow_modules=[own_loss]")
    record.assert_harmless(outcome)
    assert outcome.status == 0, outcome.stderr


@pytest.mark.long
def test_system_calls_of_hostile_records(base: Path, tmp_path: Path) -> None:
    """The audit hook sees only Python. The same commands under strace start, write and connect as for an honest run."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (tmp_path / "honest").mkdir()
    honest = system_calls(Record(base, tmp_path / "honest"), "evaluate", "run_id=RUN")
    for number, (door, change) in enumerate(TRACED):
        (tmp_path / str(number)).mkdir()
        record = Record(base, tmp_path / str(number))
        change.apply(record)
        words = {"evaluate": ("run_id=RUN",), "train": RESUME, "doctor": ("sync", "folders=[out]")}[door]
        assert system_calls(record, door, *words) <= honest, change.name


TRACED = [
    ("evaluate", next(change for change in CONFIGS if change.name == "loss-subprocess.run")),
    ("evaluate", next(change for change in EVALUATED if change.name == "download")),
    ("train", next(change for change in RESUMED if change.name == "draw-again")),
    ("doctor", next(change for change in REJECTED if change.name == "remove")),
]


def system_calls(record: Record, door: str, *words: str) -> set[str]:
    """Returns programs that were started, addresses, and files that were changed outside of the working folder."""
    log = record.work / "tmp" / "strace.txt"
    traced = "execve,connect,openat,open,creat,mkdir,unlink,unlinkat,rename,renameat,renameat2,symlink,truncate"
    command = ["strace", "-f", "-qq", "-s", "300", "-e", f"trace={traced}", "-o", str(log)]
    command += [sys.executable, "-B", "-m", f"experiments.{door}", *map(record.placed, words)]
    environment = {**os.environ, **record.environment}
    subprocess.run(command, cwd=record.work, env=environment, capture_output=True, check=False)
    calls = set()
    for line in log.read_text(errors="replace").splitlines():
        call = line.partition(" ")[2].strip().partition(" = ")[0]
        name = call.partition("(")[0]
        if name in ("open", "openat") and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", call):
            continue
        paths = [str((record.work / path).resolve()) for path in re.findall(r'"([^"]*)"', call)]
        inside = all(f"{path}/".startswith((f"{record.work}/", "/dev/", "/proc/")) for path in paths)
        if name in ("execve", "connect") or not inside:
            calls.add(f"{name} {paths[:1] if name == 'execve' else paths or call}")
    return calls
