"""Detection of dead runs among live ones, and their end."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.repair.base import Finding, treat
from experiments.repair.dead_runs import dead_runs, orphaned_folders
from experiments.repair.journals import undelivered_journals
from experiments.tracking import liveness
from experiments.tracking.liveness import run_lock

MakeRun = Callable[..., Run]
LeaveJournal = Callable[..., Path]
METRIC = ("metrics", {"step": 1, "values": {"loss": 0.5}})


def names(found: Iterable[Finding]) -> list[str]:
    return [each.name for each in found]


def status(client: MlflowClient, run: Run) -> str:
    return str(client.get_run(run.info.run_id).info.status)


def test_dead_run_is_listed_and_becomes_killed_with_fix(client: MlflowClient, running: MakeRun, tmp_path: Path) -> None:
    seen = time.time() + 3600
    run = running(tmp_path / "gone", heartbeat=seen, **{"mlflow.note.content": "mine"})
    (found,) = dead_runs(client)
    assert found.state.startswith(f"RUNNING, but process {run.data.tags['pid']} on {run.data.tags['host']} is gone")
    assert treat(found, fix=False).done == "fix=true makes it KILLED"
    assert status(client, run) == "RUNNING"
    assert treat(found, fix=True).done == "KILLED"
    now = client.get_run(run.info.run_id)
    assert (now.info.status, now.info.end_time) == ("KILLED", int(seen * 1000))
    assert now.data.tags["found_dead_by"].startswith("experiments.doctor, ")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen))
    assert now.data.tags["mlflow.note.content"] == (
        f"**KILLED** its process ended without closing the run; last heartbeat {when}\n\nmine"
    )
    assert list(dead_runs(client)) == []


def test_lock_decides_for_runs_on_this_machine(client: MlflowClient, running: MakeRun, tmp_path: Path) -> None:
    """The process number does not count, because another process may have reused it."""
    run = running(tmp_path / "out", pid=os.getpid(), heartbeat=0)
    with run_lock(tmp_path / "out"):
        assert list(dead_runs(client)) == []
    assert names(dead_runs(client)) == [run.info.run_id]


def test_process_decides_if_folder_is_missing(client: MlflowClient, running: MakeRun, tmp_path: Path) -> None:
    running(tmp_path / "gone", pid=os.getpid())
    reused = running(tmp_path / "gone too", pid=os.getpid(), heartbeat=1000)
    assert names(dead_runs(client)) == [reused.info.run_id]


@pytest.mark.parametrize(("silent", "dead"), [(240, False), (360, True), (-240, False), (-3600, True)])
def test_heartbeat_decides_for_runs_on_other_machines(
    client: MlflowClient, running: MakeRun, tmp_path: Path, silent: int, dead: bool
) -> None:
    running(tmp_path / "out", host="elsewhere", pid=1, heartbeat=time.time() - silent)
    assert bool(list(dead_runs(client))) == dead


@pytest.mark.parametrize("skew", [3600, -3600])
def test_runs_of_other_machines_are_observed_together_before_they_are_ended(
    client: MlflowClient,
    running: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    skew: int,
) -> None:
    """Their clocks are wrong: only the time without a heartbeat on the clock of this machine counts."""
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 2)
    monkeypatch.setattr(liveness, "LOOK_SECONDS", 0.05)
    made = [running(tmp_path / "out", host="elsewhere", pid=1, heartbeat=int(time.time() + skew)) for _ in range(4)]
    living, *dead = made
    pulse = liveness.Heartbeat(
        lambda: client.set_tag(living.info.run_id, "heartbeat", f"{time.time() + skew:.0f}"), interval=0.3
    )
    pulse.start()
    found = list(dead_runs(client))
    assert "process 1 on elsewhere gave no sign of life since" in found[0].state
    assert found[0].state.endswith("by its own clock")
    began = time.monotonic()
    done = {each.name: treat(each, fix=True).done for each in found}
    assert 2 <= time.monotonic() - began < 4
    pulse.stop()
    assert done.pop(living.info.run_id) == (
        f"failed: run {living.info.run_id} is alive again: a process works on it now."
    )
    assert done == {run.info.run_id: "KILLED" for run in dead}
    assert [status(client, run) for run in made] == ["RUNNING", "KILLED", "KILLED", "KILLED"]
    (text,) = caplog.messages
    assert "may still be at work on elsewhere: waiting for its next sign of life, or for 2 s without one." in text


def test_run_that_becomes_alive_before_repair_is_not_ended(
    client: MlflowClient, running: MakeRun, tmp_path: Path
) -> None:
    run = running(tmp_path / "out", host="elsewhere", heartbeat=0)
    (found,) = dead_runs(client)
    client.set_tag(run.info.run_id, "heartbeat", f"{time.time():.0f}")
    assert treat(found, fix=True).done == f"failed: run {run.info.run_id} is alive again: a process works on it now."
    assert status(client, run) == "RUNNING"


def test_run_resumed_before_repair_is_not_ended(client: MlflowClient, running: MakeRun, tmp_path: Path) -> None:
    run = running(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (found,) = dead_runs(client)
    with run_lock(tmp_path / "out"):
        assert treat(found, fix=True).failed
    assert status(client, run) == "RUNNING"


def test_runs_of_other_software_are_ignored(client: MlflowClient) -> None:
    client.create_run(client.create_experiment("others"), tags={"host": "elsewhere"})
    assert list(dead_runs(client)) == []


def test_end_event_in_journal_decides_status(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    run = running(tmp_path / "out")
    leave(run, METRIC, ("end", {"status": "FINISHED"}))
    (found,) = dead_runs(client)
    assert treat(found, fix=True).done == f"delivered 4; run {run.info.run_id} is FINISHED"
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    assert "found_dead_by" not in client.get_run(run.info.run_id).data.tags


def test_journal_without_end_event_ends_run_as_killed(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    run = running(tmp_path / "out")
    folder = leave(run, METRIC)
    (found,) = undelivered_journals([folder], client.tracking_uri)
    assert (found.state, treat(found, fix=False).done) == ("3 events not delivered", "fix=true delivers them")
    assert treat(found, fix=True).done == f"delivered 3; run {run.info.run_id} is KILLED"
    assert list(undelivered_journals([folder], client.tracking_uri)) == []


def test_journal_of_live_run_is_not_delivered(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    folder = leave(running(tmp_path / "out"), METRIC)
    with run_lock(folder):
        (found,) = undelivered_journals([folder], client.tracking_uri)
        assert treat(found, fix=True).done == "its own process delivers them"


def test_journal_is_not_sent_if_run_was_resumed_elsewhere(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    """The other folder has repeated its steps, so they would be in the history twice."""
    run = running(tmp_path / "out")
    folder = leave(run, METRIC, ("end", {"status": "KILLED"}))
    for name, value in (("host", "elsewhere"), ("output_dir", "/there")):
        client.set_tag(run.info.run_id, name, value)
    (found,) = undelivered_journals([folder], client.tracking_uri)
    assert treat(found, fix=True).done == (
        "not sent: the run is in /there on elsewhere. If that folder was moved here, set these tags of the run"
    )
    assert client.get_run(run.info.run_id).data.metrics == {}


@pytest.mark.parametrize("forged", [True, False])
def test_journal_of_other_folder_changes_no_run(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path, forged: bool
) -> None:
    """A journal may name any run; with `forged`, also the folder of that run."""
    run = running(tmp_path / "out")
    client.set_terminated(run.info.run_id, "FINISHED")
    evil = leave(run, METRIC, ("end", {"status": "FAILED"})).rename(tmp_path / "evil")
    if not forged:
        lines = (evil / "journal.jsonl").read_text().splitlines(keepends=True)
        (evil / "journal.jsonl").write_text("".join(line for line in lines if '"tags"' not in line))
    (found,) = undelivered_journals([evil], client.tracking_uri)
    assert treat(found, fix=True).done.startswith(f"not sent: the run is in {tmp_path / 'out'} on ")
    after = client.get_run(run.info.run_id)
    assert (after.info.status, after.data.metrics) == ("FINISHED", {})
    # The folder was moved: with the tag that the message names, its journal is delivered.
    client.set_tag(run.info.run_id, "output_dir", str(evil))
    (found,) = undelivered_journals([evil], client.tracking_uri)
    assert treat(found, fix=True).done.endswith(f"run {run.info.run_id} is FAILED")


def test_journal_without_store_is_delivered_once_store_is_given(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    run = running(tmp_path / "out")
    folder = leave(run, METRIC)
    (tmp_path / "m.db").rename(tmp_path / "moved.db")
    (found,) = undelivered_journals([folder], f"sqlite:///{tmp_path}/other.db")
    assert treat(found, fix=True).done == (
        f"failed: there is no file '{tmp_path}/other.db': expected the database of runs. Go to the folder where they "
        "were trained, or set logging.tracking_uri=sqlite:///FILE or an address. The journal names the store "
        f"'{client.tracking_uri}'."
    )
    (again,) = undelivered_journals([folder], f"sqlite:///{tmp_path}/moved.db")
    assert treat(again, fix=True).done == f"delivered 3; run {run.info.run_id} is KILLED"


def test_folders_of_runs_missing_in_store_are_only_listed(
    client: MlflowClient, running: MakeRun, leave: LeaveJournal, tmp_path: Path
) -> None:
    kept, deleted, lost = (running(tmp_path / name) for name in ("kept", "deleted", "lost"))
    folders = [leave(run, METRIC) for run in (kept, deleted, lost)]
    text = (folders[2] / "journal.jsonl").read_text()
    (folders[2] / "journal.jsonl").write_text(text.replace(lost.info.run_id, "f" * 32))
    client.delete_run(deleted.info.run_id)
    found = list(orphaned_folders(client, folders))
    assert names(found) == [str(folder) for folder in folders[1:]]
    assert [each.state.split(" (")[0] for each in found] == [
        f"its run {deleted.info.run_id} is deleted in MLflow",
        f"its run {'f' * 32} is no longer in the store",
    ]
    assert [treat(each, fix=True).done for each in found] == ["delete it if not needed"] * 2
    assert folders[2].is_dir()
