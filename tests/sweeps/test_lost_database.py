"""Sweeps whose database is unavailable for a while, or loses the answers to calls that it has executed."""

import csv
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb import storage as rdb
from tests.mlflow_server import MlflowServer
from tests.postgres import Postgres, postgres_server
from tests.sweeps.test_other_machines import TINY, jobs_of
from tests.sweeps.test_queue import plan_of
from tests.sweeps.test_shared_queue import KILLED, ended, forked, start
from tests.trainings import Trainings

from experiments.__main__ import main
from experiments.errors import ExperimentError
from experiments.sweeps import members
from experiments.sweeps.members import WORKER
from experiments.sweeps.plan import Plan
from experiments.sweeps.queue import Job, Queue, cell_of
from experiments.tracking import liveness
from experiments.tracking.patience import LEAVING_SECONDS, SWEEP_SECONDS, least_patience, waiting

pytestmark = [pytest.mark.servers, pytest.mark.long]
OUTAGE_SECONDS, DEAD_SECONDS = 2.0, 4


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres_server() as found:
        yield found


def results(folder: Path, plan: Plan) -> dict[int, tuple[str, list[float] | None, Any]]:
    """States, values and seeds of the jobs. Each is finished by one attempt only."""
    queue = Queue(folder, plan)
    trials = [trial for trial in queue.study.get_trials() if trial.values and "job" in trial.user_attrs]
    numbers = [trial.user_attrs["job"] for trial in trials]
    assert sorted(numbers) == sorted({*numbers})
    jobs = sorted(queue.jobs().items())
    return {number: (trial.state.name, trial.values, cell_of(trial).get("seed")) for number, trial in jobs}


POINTS = ["before taking", "during a job", "before telling"]


def work(folder: Path, plan: Plan, reached: Path, point: str | None) -> None:
    """Works as a worker, and waits for the outage at `point` of its second job."""

    def pass_point(name: str) -> None:
        if name == point and count == 1:
            reached.touch()
            time.sleep(OUTAGE_SECONDS / 2)

    count = 0
    with waiting(least_patience, SWEEP_SECONDS):
        queue = Queue(folder, plan)
    with queue.members.joined(WORKER) as name:
        while True:
            pass_point("before taking")
            job: Job | None = queue.take(name)
            if job is None:
                return
            job.trial.report(0.1, 1)
            pass_point("during a job")
            job.trial.report(0.2, 2)
            job.trial.should_prune()
            job.trial.set_user_attr("run_id", "r")
            pass_point("before telling")
            queue.finished(job, [float(str(job.cell["seed"])) / 7])
            count += 1
            time.sleep(0.2)  # so that the other worker has jobs, too


@pytest.mark.parametrize("point", POINTS)
def test_workers_wait_for_database(database: Postgres, tmp_path: Path, point: str) -> None:
    plan = plan_of("seed=range(8)", storage=database.url)
    assert ended(forked(lambda: Queue(tmp_path, plan, new=True).fill())) == 0
    reached = tmp_path / "reached"
    workers = [forked(partial(work, tmp_path, plan, reached, at)) for at in (point, None)]
    while not reached.exists():
        time.sleep(0.01)
    database.stop()
    time.sleep(OUTAGE_SECONDS)
    database.start()
    assert [ended(worker) for worker in workers] == [0, 0]
    expected = {number: ("COMPLETE", [number / 7], number) for number in range(8)}

    def check() -> None:
        assert results(tmp_path, plan) == expected

    assert ended(forked(check)) == 0


@contextmanager
def losing(is_lost: Callable[[int], bool]) -> Iterator[None]:
    """Executes transactions, and raises the error of a lost connection after those with these numbers."""
    from sqlalchemy.exc import OperationalError

    session, count = rdb._create_scoped_session, 0

    @contextmanager
    def lossy(*arguments: Any) -> Iterator[Any]:
        nonlocal count
        with session(*arguments) as opened:
            yield opened
        count += 1
        if is_lost(count):
            raise StorageInternalError("lost") from OperationalError("x", None, Exception("the answer was lost"))

    rdb._create_scoped_session = lossy  # type: ignore[assignment]
    try:
        yield
    finally:
        rdb._create_scoped_session = session


@pytest.mark.parametrize("shape", KILLED)
@pytest.mark.parametrize("phase", range(3))
def test_lost_answers_repeat_no_change(database: Postgres, tmp_path: Path, shape: str, phase: int) -> None:
    """Every third answer is lost, in each phase another one, so that each call of a sweep loses its answer once."""
    typed, count, repeats, settings = KILLED[shape]
    plan = plan_of(typed, storage=database.url, **settings)

    def work_and_check() -> None:
        with waiting(least_patience, SWEEP_SECONDS), losing(lambda number: number % 3 == phase):
            start(tmp_path, plan)
        found = results(tmp_path, plan)
        assert {number: (state, values) for number, (state, values, _) in found.items()} == {
            number: ("COMPLETE", [0.5]) for number in range(count)
        }
        seeds = [seed for _, _, seed in found.values()]
        assert seeds[::repeats] == seeds[repeats - 1 :: repeats]
        assert len({*seeds}) == count // repeats
        states = {trial.state.name for trial in Queue(tmp_path, plan).study.get_trials()}
        assert states <= {"COMPLETE", "FAIL"}  # no second attempt waits or runs

    assert ended(forked(work_and_check)) == 0


def test_command_does_not_wait_for_database_that_never_answered(database: Postgres, tmp_path: Path) -> None:
    plan = plan_of("seed=1,2", storage=database.url)
    database.stop()

    def open_queue() -> None:
        began = time.monotonic()
        with pytest.raises(ExperimentError, match=r"^sweep\.storage=\S+ cannot be used: .* refused.*Start it, or"):
            Queue(tmp_path, plan, new=True)
        assert time.monotonic() - began < 5
        assert not list(tmp_path.iterdir())

    try:
        assert ended(forked(open_queue)) == 0
    finally:
        database.start()


def test_signal_ends_wait_for_database(database: Postgres, tmp_path: Path) -> None:
    """Leaving is an attempt to write to the database, which must not hold back the process for minutes either."""
    plan, ready = plan_of("seed=1,2", storage=database.url), tmp_path / "ready"

    def wait() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))  # noqa: ARG005
        queue = Queue(tmp_path, plan, new=True)
        queue.fill()
        with queue.members.joined(WORKER) as name:
            ready.touch()
            while not server_is_down.exists():
                time.sleep(0.01)
            queue.take(name)

    def exits_with_its_status() -> None:
        try:
            wait()
        except SystemExit as end:
            os._exit(int(str(end.code)))

    server_is_down = tmp_path / "down"
    waiting_process = forked(exits_with_its_status)
    while not ready.exists():
        time.sleep(0.01)
    database.stop()
    try:
        server_is_down.touch()
        time.sleep(1.5)
        began = time.monotonic()
        os.kill(waiting_process, signal.SIGTERM)
        assert ended(waiting_process) == 7
        assert time.monotonic() - began < LEAVING_SECONDS + 2
    finally:
        database.start()


def test_wait_is_announced_once(database: Postgres, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = plan_of("seed=1,2", storage=database.url)

    def read() -> None:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", force=True)
        queue = Queue(tmp_path, plan, new=True)
        database.stop()
        threading.Timer(3, database.start).start()
        assert queue.left() == 0

    assert ended(forked(read)) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "database" in line]
    assert len(lines) == 2, lines
    assert lines[0].startswith("WARNING The database of the sweep is unavailable; waiting up to 600 s: connection")
    assert lines[1] == "WARNING The database of the sweep answers again."


def rows(folder: Path) -> dict[str, tuple[str, str]]:
    with (folder / "swept" / "summary" / "jobs.csv").open() as file:
        return {row["job"]: (row["state"], row["val_accuracy"]) for row in csv.DictReader(file)}


def test_sweep_with_joined_worker_survives_outages_of_database(
    trainings: Trainings, server: MlflowServer, database: Postgres, tmp_path: Path
) -> None:
    calm, one, other = (tmp_path / name for name in ("calm", "one", "other"))
    for folder in (calm, one, other):
        folder.mkdir()
    shared = [f"logging.tracking_uri={server.uri}", f"sweep.storage={database.url}"]
    overrides = [*TINY, "seed=range(6)", "epochs=20", *shared]
    assert trainings.run(calm, *overrides, "logging.experiment_name=calm", store=False).returncode == 0
    with trainings.started(one, *overrides, "logging.experiment_name=stormy", store=False) as sweep:
        sweep.wait_for("job 1 of 6")
        while not (begun := jobs_of(server, "stormy")) and sweep.goes_on():
            time.sleep(0.1)
        joining = ("worker", f"sweep={begun[0].data.tags['sweep']}", *shared)
        with trainings.started(other, *joining, door="__main__", store=False) as worker:
            worker.wait_for("of 6)")
            for _ in range(3):
                database.stop()
                time.sleep(OUTAGE_SECONDS)
                database.start()
                time.sleep(1)
            assert worker.wait() == 0, worker.stderr
        assert sweep.wait() == 0, sweep.stderr
        assert "The database of the sweep answers again." in sweep.stderr
    assert rows(one) == rows(calm)
    assert [state for state, _ in rows(one).values()] == ["COMPLETE"] * 6
    assert [run.info.status for run in jobs_of(server, "stormy")] == ["FINISHED"] * 6


def run_as(host: str, folder: str, *words: str) -> None:
    """Runs a command on a machine with this name, on which signs of life come and are missed within seconds."""
    socket.gethostname = lambda: host
    members.HEARTBEAT_SECONDS = liveness.HEARTBEAT_SECONDS = DEAD_SECONDS  # type: ignore[attr-defined]
    liveness.Heartbeat.__init__.__kwdefaults__ = {"interval": DEAD_SECONDS / 8}
    os.chdir(folder)
    sys.argv[1:] = words
    main()


def test_job_of_suspended_worker_is_taken_over(
    trainings: Trainings, server: MlflowServer, database: Postgres, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    shared = [f"logging.tracking_uri={server.uri}", f"sweep.storage={database.url}"]
    overrides = [*TINY, "seed=range(4)", "epochs=40", *shared, "logging.experiment_name=suspended"]
    with trainings.calling(run_as, "one", str(one), "train", *overrides) as sweep:
        sweep.wait_for("job 1 of 4")
        while not (begun := jobs_of(server, "suspended")) and sweep.goes_on():
            time.sleep(0.1)
        identity = begun[0].data.tags["sweep"]
        with trainings.calling(run_as, "other", str(other), "worker", f"sweep={identity}", *shared) as worker:
            while not (checkpoints := list(other.glob("**/checkpoints/*.json"))) and worker.goes_on():
                time.sleep(0.02)
            worker.send(signal.SIGSTOP)
            number = checkpoints[0].parents[1].name
            hidden = other.rename(tmp_path / "hidden")  # as the machines share no disk
            assert sweep.wait() == 0, sweep.stderr
            before = {run.data.tags["sweep.job"]: run for run in jobs_of(server, "suspended")}
            assert {run.info.status for run in before.values()} == {"FINISHED"}
            hidden.rename(other)
            worker.send(signal.SIGCONT)
            assert worker.wait() == 0, worker.stderr
            assert f"#{number} was taken over, as this worker gave no sign of life" in worker.stderr
    assert [state for state, _ in rows(one).values()] == ["COMPLETE"] * 4
    after = {run.data.tags["sweep.job"]: run for run in jobs_of(server, "suspended")}
    for job, run in after.items():
        assert run.info.to_proto() == before[job].info.to_proto()
        assert run.data.tags.keys() == before[job].data.tags.keys()
        assert {**run.data.tags, "heartbeat": ""} == {**before[job].data.tags, "heartbeat": ""}
        assert run.data.metrics == before[job].data.metrics
