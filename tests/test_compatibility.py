"""What version 0.1 has written: read with the same results, continued with the same bits, or refused by name."""

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
"""Of version 0.1."""
DATA = ("data=image_folder", "data.path=photos", "data.batch_size=8")
WORDS = (*DATA, "data.image_size=[16,16]", "model=mlp")
Old = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compatibility")
    paint(folder / "photos" / "train", 12)
    paint(folder / "photos" / "valid", 4, height=19)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In which `python -m experiments.NAME` is that of version 0.1."""
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
    def run(command: str, *words: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", f"experiments.{command}", *words]
        return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=True)

    return run


def stop_old(folder: Path, environment: dict[str, str], line: str, *words: str) -> None:
    """Trains by version 0.1 until it says `line`, and sends SIGTERM."""
    command = [sys.executable, "-m", "experiments.train", *words]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(said.startswith(line) for said in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM


def run_id(output_dir: Path) -> str:
    with (output_dir / "journal.jsonl").open(encoding="utf-8") as journal:
        return str(json.loads(journal.readline())["run_id"])


def test_a_finished_run_reads_the_same(folder: Path, old: Old, trainings: Trainings) -> None:
    old("train", *WORDS, "epochs=4", "checkpoint.every_epoch=true", "hydra.run.dir=finished")
    asked = [
        ("evaluate", "format=json"),
        ("evaluate", "format=json", "checkpoint=latest"),
        ("predict", "format=json", "path=photos/valid"),
        ("doctor", "format=json", "folders=[finished]"),
    ]
    for command, *words in asked:
        words += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        new = trainings.run(folder, *words, door=command, store=False)
        assert json.loads(new.stdout) == json.loads(old(command, *words).stdout), (command, new.stderr)


def test_what_was_not_delivered_is_delivered(folder: Path, trainings: Trainings) -> None:
    (folder / "finished" / "journal.offset").write_text("0".zfill(20))
    said = trainings.run(folder, "sync", "folders=[finished]", "format=json", door="doctor", store=False).stdout
    assert f"run {run_id(folder / 'finished')} is FINISHED" in json.loads(said)[0]["repair"]


def test_a_saved_model_answers_the_same(folder: Path, environment: dict[str, str]) -> None:
    code = "import mlflow, numpy; x = numpy.full((2, 16, 16, 3), 99, 'uint8'); "
    code += "print(mlflow.pyfunc.load_model('finished/model').predict(x).tolist())"
    said = [
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=each, capture_output=True, text=True, check=True)
        for each in (environment, {**environment, "PYTHONPATH": str(ROOT / "src")})
    ]
    assert said[0].stdout.splitlines()[-1] == said[1].stdout.splitlines()[-1]


def test_a_stopped_run_continues_bit_for_bit(
    folder: Path, environment: dict[str, str], old: Old, trainings: Trainings
) -> None:
    """With the callbacks that version 0.1 had by default, and a key that has another name now."""
    words = (
        *WORDS,
        "epochs=200",
        "logging.log_model=false",
        "logging.log_figures=false",
        "logging.tracker.flush_timeout=61",
    )
    old("train", *words, "hydra.run.dir=whole")
    stop_old(folder, environment, "epoch 20/", *words, "hydra.run.dir=stopped", "progress=plain")
    resume = f"resume={run_id(folder / 'stopped')}"
    refused = trainings.run(folder, resume, store=False)
    assert refused.returncode == 1
    assert "resume_allow=[code]" in refused.stderr
    assert trainings.run(folder, resume, "resume_allow=[code]", "progress=none", store=False).returncode == 0
    assert_same_bits(folder / "stopped" / "checkpoints", folder / "whole" / "checkpoints")


@pytest.mark.parametrize(
    "words",
    [
        ("cnn", "loop=tape", "augment=standard", "schedule=cosine", "optimizer=sgd", "data.image_size=[16,16]"),
        ("mobilenetv2", "model.weights=null", "model.alpha=0.35", "data.image_size=[32,32]"),
    ],
    ids=["tape", "frozen"],
)
def test_a_new_run_has_the_same_bits(folder: Path, old: Old, trainings: Trainings, words: tuple[str, ...]) -> None:
    """What is drawn, in which order, and each step are those of version 0.1."""
    model, *changes = words
    same = (*DATA, *changes, f"model={model}", "epochs=2", "progress=none", "logging=none", "logging.log_model=false")
    old("train", *same, f"hydra.run.dir=old_{model}")
    new = trainings.run(folder, *same, f"hydra.run.dir=new_{model}", store=False)
    assert new.returncode == 0, new.stderr
    assert_same_bits(folder / f"new_{model}" / "checkpoints", folder / f"old_{model}" / "checkpoints")


def test_a_stopped_sweep_is_refused_by_version(folder: Path, environment: dict[str, str], trainings: Trainings) -> None:
    sweep = ("-m", "data=digits", "data.limit=200", "model=mlp", "seed=1,2,3", "epochs=2", "hydra.sweep.dir=swept")
    stop_old(folder, environment, "#1 ", *sweep)
    refused = trainings.run(folder, *sweep, "sweep.resume=last", store=False)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()[-1:]
    assert "was planned by version 0.1: " in line
