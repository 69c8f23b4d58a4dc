"""Workers load TensorFlow while the sweep's run is opened, and take no job before."""

import json
from pathlib import Path
from threading import Event, Timer

import pytest
from tests.trainings import Trainings

from experiments.run_lock import locked
from experiments.sweeps.opening import OPENED, Opened, wait_until_opened
from experiments.sweeps.plan import PLAN
from experiments.sweeps.study_file import STUDY

TWO = (
    *("-m", "data=digits", "model=mlp", "seed=1,2"),
    *("sweep.workers=2", "hydra/launcher=joblib", "hydra.sweep.dir=swept"),
)


@pytest.mark.parametrize("parent", ["1234", None])
def test_workers_wait_for_the_sweep_s_run(tmp_path: Path, parent: str | None) -> None:
    begun = Event()

    def tell() -> None:
        begun.set()
        (tmp_path / OPENED).write_text(json.dumps({"parent": parent}))

    with locked(tmp_path):
        Timer(0.2, tell).start()
        assert wait_until_opened(tmp_path) == Opened(parent)
    assert begun.is_set()


def test_workers_do_not_wait_for_a_sweep_whose_process_is_gone(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    assert wait_until_opened(tmp_path) is None


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_ends_the_sweep_before_any_job(trainings: Trainings, tmp_path: Path) -> None:
    ended = trainings.run(tmp_path, *TWO, "logging.tracking_uri=http://127.0.0.1:9")
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "error: tracking server http://127.0.0.1:9 is not reachable: [Errno 111] Connection refused. "
        "Start it, set logging.tracking_uri, or run with logging=none."
    )
    left = {path.name for path in (tmp_path / "swept").iterdir()}
    # Nothing that sweep.resume=last would take for a sweep.
    assert not left & {PLAN, STUDY, "0", "1", "summary"}


@pytest.mark.slow
def test_nothing_is_tracked(trainings: Trainings, tmp_path: Path) -> None:
    tiny = ("data.limit=100", "epochs=1", "logging=none")
    ended = trainings.run(tmp_path, *TWO, *tiny)
    assert ended.returncode == 0, ended.stderr
    assert "best     #" in ended.stdout
    assert json.loads((tmp_path / "swept" / OPENED).read_text()) == {"parent": None}


@pytest.mark.slow
def test_a_sweep_s_folder_is_all_that_its_starts_leave(trainings: Trainings, tmp_path: Path) -> None:
    tiny = ("-m", "data=digits", "model=mlp", "data.limit=100", "epochs=1", "logging=none")
    folder = tmp_path / "it's swept"
    own = f"hydra.sweep.dir='{tmp_path}/it\\'s swept'"
    assert trainings.run(tmp_path, *tiny, own).returncode == 0
    before = {path.name for path in folder.iterdir()}
    assert {"0", "workers", "summary"} <= before
    resumed = trainings.run(tmp_path, "-m", f"sweep.resume='{tmp_path}/it\\'s swept'")
    assert resumed.returncode == 0, resumed.stderr
    assert {path.name for path in folder.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} - {"mlflow.db"} == {folder.name}
