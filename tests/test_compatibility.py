"""Files of version 0.1 are read with the same results, resumed bit for bit, or refused with a reason."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import paint
from tests.killing.server import ROOT
from tests.trainings import Trainings, assert_same_bits

pytestmark = pytest.mark.long

LAST_COMMIT = "abf3fac"
"""The last commit of version 0.1."""
DATA = ("data=image_folder", "data.path=photos", "data.batch_size=8")
OVERRIDES = (*DATA, "data.image_size=[16,16]", "model=mlp")
Old = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compatibility")
    paint(folder / "photos" / "train", 12)
    paint(folder / "photos" / "valid", 4, height=19)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns environment variables with which `python -m experiments.NAME` runs version 0.1."""
    source = tmp_path_factory.mktemp("source")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", LAST_COMMIT, "src", "conf"], capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"commit {LAST_COMMIT} is not here: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": str(source / "src")}


@pytest.fixture(scope="module")
def old(folder: Path, environment: dict[str, str]) -> Old:
    def run(command: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", f"experiments.{command}", *overrides]
        return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=True)

    return run


def stop_old(folder: Path, environment: dict[str, str], line: str, *overrides: str) -> None:
    """Trains with version 0.1 until it prints `line`, and sends SIGTERM."""
    command = [sys.executable, "-m", "experiments.train", *overrides]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(printed.startswith(line) for printed in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM


def run_id(output_dir: Path) -> str:
    with (output_dir / "journal.jsonl").open(encoding="utf-8") as journal:
        return str(json.loads(journal.readline())["run_id"])


def test_finished_run_is_read_with_same_results(folder: Path, old: Old, trainings: Trainings) -> None:
    old("train", *OVERRIDES, "epochs=4", "checkpoint.every_epoch=true", "hydra.run.dir=finished")
    commands = [
        ("evaluate", "format=json"),
        ("evaluate", "format=json", "checkpoint=latest"),
        ("predict", "format=json", "path=photos/valid"),
        ("doctor", "format=json", "folders=[finished]"),
    ]
    for command, *overrides in commands:
        overrides += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        new = trainings.run(folder, *overrides, door=command, store=False)
        # Version 0.1 does not print the number of examples.
        rows = [{key: row[key] for key in row if key != "examples"} for row in json.loads(new.stdout)]
        assert rows == json.loads(old(command, *overrides).stdout), (command, new.stderr)


def test_undelivered_events_are_delivered(folder: Path, trainings: Trainings) -> None:
    (folder / "finished" / "journal.offset").write_text("0".zfill(20))
    output = trainings.run(folder, "sync", "folders=[finished]", "format=json", door="doctor", store=False).stdout
    assert f"run {run_id(folder / 'finished')} is FINISHED" in json.loads(output)[0]["repair"]


def test_saved_model_returns_same_predictions(folder: Path, environment: dict[str, str]) -> None:
    code = "import mlflow, numpy; x = numpy.full((2, 16, 16, 3), 99, 'uint8'); "
    code += "print(mlflow.pyfunc.load_model('finished/model').predict(x).tolist())"
    outputs = [
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=each, capture_output=True, text=True, check=True)
        for each in (environment, {**environment, "PYTHONPATH": str(ROOT / "src")})
    ]
    assert outputs[0].stdout.splitlines()[-1] == outputs[1].stdout.splitlines()[-1]


def test_stopped_run_resumes_bit_for_bit(
    folder: Path, environment: dict[str, str], old: Old, trainings: Trainings
) -> None:
    """The run has the default callbacks of version 0.1, and a key that has been renamed since."""
    overrides = (
        *OVERRIDES,
        "epochs=200",
        "logging.log_model=false",
        "logging.log_figures=false",
        "logging.tracker.flush_timeout=61",
    )
    old("train", *overrides, "hydra.run.dir=uninterrupted")
    stop_old(folder, environment, "epoch 20/", *overrides, "hydra.run.dir=stopped", "progress=plain")
    resume = f"resume={run_id(folder / 'stopped')}"
    refused = trainings.run(folder, resume, store=False)
    assert refused.returncode == 1
    assert "resume_allow=[code]" in refused.stderr
    assert trainings.run(folder, resume, "resume_allow=[code]", "progress=none", store=False).returncode == 0
    assert_same_bits(folder / "stopped" / "checkpoints", folder / "uninterrupted" / "checkpoints")


@pytest.mark.parametrize(
    "overrides",
    [
        ("cnn", "loop=tape", "augment=standard", "schedule=cosine", "optimizer=sgd", "data.image_size=[16,16]"),
        ("mobilenetv2", "model.weights=null", "model.alpha=0.35", "data.image_size=[32,32]"),
    ],
    ids=["tape", "frozen"],
)
def test_new_run_is_bit_for_bit_identical(
    folder: Path, old: Old, trainings: Trainings, overrides: tuple[str, ...]
) -> None:
    """Random numbers, their order and the training steps are those of version 0.1."""
    model, *changes = overrides
    same = (*DATA, *changes, f"model={model}", "epochs=2", "progress=none", "logging=none", "logging.log_model=false")
    old("train", *same, f"hydra.run.dir=old_{model}")
    new = trainings.run(folder, *same, f"hydra.run.dir=new_{model}", store=False)
    assert new.returncode == 0, new.stderr
    assert_same_bits(folder / f"new_{model}" / "checkpoints", folder / f"old_{model}" / "checkpoints")


def test_stopped_sweep_of_old_version_is_refused(
    folder: Path, environment: dict[str, str], trainings: Trainings
) -> None:
    sweep = ("-m", "data=digits", "data.limit=200", "model=mlp", "seed=1,2,3", "epochs=2", "hydra.sweep.dir=swept")
    stop_old(folder, environment, "#1 ", *sweep)
    refused = trainings.run(folder, *sweep, "sweep.resume=last", store=False)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()[-1:]
    assert "was planned by version 0.2 or older: " in line
