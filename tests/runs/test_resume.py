"""Finding the run to resume, and refusing to resume it with other settings."""

import json
import logging
import shutil
import socket
import time
from pathlib import Path

import pytest
from tests.stopped_runs import THREADS, Compose, Runs, current_fingerprint

from experiments.errors import ConfigError, TrackingError
from experiments.runs import resume, resume_checks
from experiments.runs.run import run
from experiments.tracking.liveness import HEARTBEAT_SECONDS, Heartbeat, is_alive, run_lock, signs_of_life


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}"


@pytest.fixture
def runs(composed: Compose, store: str, tmp_path: Path) -> Runs:
    return Runs(composed, store, tmp_path)


def test_resume_null_starts_new_run(runs: Runs, tmp_path: Path) -> None:
    runs.create()
    assert runs.find().run_id is None
    assert runs.find().output_dir == tmp_path / "new"


@pytest.mark.parametrize("which", ["last", "0123456789abcdef"])
def test_resume_without_tracking_store_is_refused(composed: Compose, tmp_path: Path, which: str) -> None:
    with pytest.raises(ConfigError) as error:
        resume.find_resume_point(composed("logging=none", f"resume={which}"), tmp_path)
    assert str(error.value) == f"resume={which} needs a tracking store: received logging=none, expected mlflow."


def test_last_starts_new_run_if_none_exists(composed: Compose, runs: Runs, tmp_path: Path) -> None:
    absent = composed(f"logging.tracking_uri=sqlite:///{tmp_path}/absent.db", "resume=last")
    assert resume.find_resume_point(absent, tmp_path).run_id is None
    assert not (tmp_path / "absent.db").exists()
    assert runs.find("resume=last").run_id is None


def test_last_selects_newest_unfinished_run_of_same_config(runs: Runs) -> None:
    runs.create(status="FINISHED")
    older = runs.create(status="FAILED")
    assert runs.find("resume=last").run_id == older
    newer = runs.create(status="RUNNING")
    runs.create("seed=1")
    assert runs.find("resume=last").run_id == newer
    assert runs.find("resume=last", "epochs=9", "progress=none", "checkpoint.every_n_steps=3").run_id == newer
    assert runs.find("resume=last", "seed=2").run_id is None


def test_last_skips_run_of_active_process(runs: Runs) -> None:
    older, newer = runs.create(status="RUNNING"), runs.create(status="RUNNING")
    with run_lock(runs.output_dir(newer)):
        assert runs.find("resume=last").run_id == older
    assert runs.find("resume=last").run_id == newer


def test_last_refuses_to_repeat_active_run(runs: Runs, tmp_path: Path) -> None:
    older, newer = runs.create(status="RUNNING"), runs.create(status="RUNNING")
    together = runs.find("resume=last")
    with run_lock(runs.output_dir(newer)):
        with pytest.raises(TrackingError) as error:
            runs.check("resume=last")
        with pytest.raises(TrackingError, match=f"would repeat run {newer}"):
            resume_checks.check_resume(together, current_fingerprint(together.cfg), tmp_path / "new")
        assert runs.check("resume=last", data="f" * 64).run_id is None
    assert str(error.value) == (
        f"resume=last would repeat run {newer}: a process on {socket.gethostname()} works in "
        f"'{runs.output_dir(newer)}'. Expected no other active run of this config and data. Wait for its end, or "
        "stop it; resume=null starts another run."
    )
    with run_lock(runs.output_dir(older)):
        assert runs.check("resume=last").run_id == newer


def test_resumed_run_keeps_folder_and_name(runs: Runs, tmp_path: Path) -> None:
    run_id = runs.create()
    found = runs.check("resume=last")
    assert (found.run_id, found.output_dir) == (run_id, runs.output_dir(run_id))
    assert (tmp_path / "new" / "resumed").resolve() == runs.output_dir(run_id).resolve()
    assert dict(found.changed) == {}


def test_run_without_snapshot_is_resumed(runs: Runs) -> None:
    runs.create(with_snapshot=False)
    found = runs.check("resume=last")
    assert found.run_id is not None
    assert found.recorded is None


def test_unknown_run_id_is_refused(runs: Runs, store: str) -> None:
    with pytest.raises(TrackingError) as error:
        runs.find("resume=0123456789abcdef")
    assert str(error.value) == (
        f"resume=0123456789abcdef is not in {store}: Run with id=0123456789abcdef not found. Set resume to the "
        "id of a run in that store, as MLflow's page shows it, or logging.tracking_uri to the run's store."
    )


def test_active_run_is_refused(runs: Runs) -> None:
    run_id = runs.create(status="RUNNING", pid="123", host="there")
    with run_lock(runs.output_dir(run_id)), pytest.raises(TrackingError) as error:
        runs.find(f"resume={run_id}")
    assert str(error.value) == (
        f"resume={run_id} is alive: process 123 on there works on it. "
        "Expected a run that no process works on. Wait for its end, or stop it."
    )


@pytest.mark.parametrize(
    ("host", "seconds_ago", "status", "alive"),
    [
        ("elsewhere", 10, "RUNNING", True),
        ("elsewhere", HEARTBEAT_SECONDS + 10, "RUNNING", False),
        ("elsewhere", 10, "KILLED", False),
        (socket.gethostname(), 10, "RUNNING", False),
    ],
)
def test_liveness_of_run_without_lock(runs: Runs, host: str, seconds_ago: float, status: str, alive: bool) -> None:
    run_id = runs.create(status=status, host=host, heartbeat=f"{time.time() - seconds_ago:.0f}")
    assert is_alive(runs.client.get_run(run_id)) == alive


@pytest.fixture
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.liveness.LOOK_SECONDS", 0.05)


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_resume_waits_for_missing_heartbeat_of_lost_machine(
    runs: Runs, frequent_checks: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """The clock of the other machine may be ahead or behind: the time without a heartbeat is measured here."""
    monkeypatch.setattr("experiments.tracking.liveness.HEARTBEAT_SECONDS", 1)
    run_id = runs.create(status="RUNNING", host="elsewhere", heartbeat=f"{time.time() + ahead:.0f}")
    assert runs.check("resume=last").run_id == run_id
    assert f"Run {run_id} may still be at work on elsewhere: waiting for its next sign of life" in caplog.text


def test_resume_waits_for_next_heartbeat_of_other_machine(runs: Runs, frequent_checks: None) -> None:
    run_id = runs.create(status="RUNNING", host="elsewhere", heartbeat=f"{time.time() - 10:.0f}")
    heartbeat = Heartbeat(lambda: runs.client.set_tag(run_id, "heartbeat", f"{time.time():.0f}"), interval=0.5)
    heartbeat.start()
    with pytest.raises(TrackingError, match=f"resume={run_id} is alive: process .* on elsewhere works on it"):
        runs.find(f"resume={run_id}")
    heartbeat.stop()


def test_run_id_restores_recorded_overrides(runs: Runs) -> None:
    run_id = runs.create("model=mlp", "model.dropout=0.4", "optimizer.learning_rate=0.02", "resume=last", "epochs=7")
    found = runs.check(f"resume={run_id}")
    assert found.cfg.model.dropout == 0.4
    assert found.cfg.optimizer.learning_rate == 0.02
    assert (found.cfg.epochs, found.cfg.resume) == (7, run_id)
    extended = runs.check(f"resume={run_id}", "epochs=9")
    assert extended.cfg.epochs == 9


@pytest.mark.parametrize("began", [("model=mlp",), ("+logging.tags.purpose=test",), ("~metrics.accuracy",)])
def test_repeated_overrides_are_accepted(runs: Runs, began: tuple[str, ...]) -> None:
    run_id = runs.create(*began)
    assert runs.check(f"resume={run_id}", *began).run_id == run_id


def test_changed_values_are_refused_by_name(runs: Runs) -> None:
    run_id = runs.create()
    with pytest.raises(ConfigError) as error:
        runs.check(f"resume={run_id}", "optimizer.learning_rate=0.5", "data.batch_size=4")
    assert str(error.value) == (
        f"resume={run_id} would continue differently: data.batch_size was 32, now 4; "
        "optimizer.learning_rate was 0.001, now 0.5. Expected what the run started with. Change it back, allow it by "
        "resume_allow=[data.batch_size,optimizer.learning_rate], or start a new run with resume=null."
    )


@pytest.mark.parametrize("part", ["code", "versions", "data"])
def test_changed_code_versions_or_data_are_refused(runs: Runs, part: str) -> None:
    run_id = runs.create()
    before = getattr(current_fingerprint(runs.cfg()), part)[:12]
    with pytest.raises(ConfigError) as error:
        runs.check(f"resume={run_id}", **{part: "f" * 64})
    assert f"would continue differently: {part} was {before}, now ffffffffffff (other {part})." in str(error.value)
    permitted = runs.check(f"resume={run_id}", f"resume_allow=[{part}]", **{part: "f" * 64})
    assert dict(permitted.changed) == {f"resumed.{part}": f"ffffffffffff (other {part})"}


def test_allowed_changes_become_tags(runs: Runs) -> None:
    run_id = runs.create()
    overrides = (f"resume={run_id}", "optimizer.learning_rate=0.5", "optimizer.beta_1=0.8")
    assert dict(runs.check(*overrides, "resume_allow=[optimizer]").changed) == {
        "resumed.optimizer.learning_rate": "0.5",
        "resumed.optimizer.beta_1": "0.8",
    }
    with pytest.raises(ConfigError, match=r"allow it by resume_allow=\[optimizer\.learning_rate\]"):
        runs.check(*overrides, "resume_allow=[optimizer.beta_1]")


def test_monitor_that_chose_the_best_weights_cannot_change(runs: Runs) -> None:
    run_id = runs.create()
    with pytest.raises(ConfigError) as error:
        runs.check(f"resume={run_id}", "monitor.metric=val_loss", "monitor.mode=min", "resume_allow=[monitor]")
    assert "monitor.metric was val_accuracy, now val_loss. Expected the one that chose the best" in str(error.value)
    assert str(error.value).endswith(f"resume=null model.weights=runs:/{run_id}.")


def test_last_refuses_weights_that_may_be_of_another_run(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("data=digits", "model=mlp", "resume=last", "model.weights=runs:/best")
    with pytest.raises(ConfigError, match=r"model.weights=runs:/best may be another run than before"):
        run(cfg, tmp_path)


def test_resumed_run_keeps_number_of_threads(runs: Runs) -> None:
    run_id = runs.create()
    assert runs.find(f"resume={run_id}").threads == THREADS
    with pytest.raises(ConfigError, match=r"runtime\.threads was 2, now 1\."):
        runs.check(f"resume={run_id}", "runtime.threads=1")


def test_changed_number_of_devices_is_refused(runs: Runs) -> None:
    run_id = runs.create("runtime.strategy=mirrored")
    difference = "replicas was 1, now 2 (devices that share each batch)"
    with pytest.raises(ConfigError) as error:
        runs.check(f"resume={run_id}", replicas=2)
    assert f"resume={run_id} would continue differently: {difference}." in str(error.value)
    permitted = runs.check(f"resume={run_id}", "resume_allow=[replicas]", replicas=2)
    assert dict(permitted.changed) == {"resumed.replicas": "2 (devices that share each batch)"}


def test_last_starts_new_run_on_other_data(runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_id = runs.create()
    found = runs.check("resume=last", data="f" * 64)
    assert (found.run_id, found.output_dir) == (None, tmp_path / "new")
    # The folder must stay empty, because its contents are uploaded.
    assert list((tmp_path / "new").iterdir()) == []
    assert caplog.messages == [f"Run {run_id} started with other data; starting a new run."]


def test_changed_processor_is_reported_and_tagged(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    run_id = runs.create()
    before = current_fingerprint(runs.cfg()).cpu
    found = runs.check(f"resume={run_id}", cpu="Abacus 9")
    assert dict(found.changed) == {"resumed.cpu": "Abacus 9"}
    assert caplog.messages == [f"Run {run_id} started on {before}; its last bits may differ now."]


def test_missing_run_folder_is_downloaded_from_store(runs: Runs, tmp_path: Path) -> None:
    """On another machine, a folder of the same name may contain files of another run."""
    run_id = runs.create("model=mlp")
    own = runs.output_dir(run_id)
    (own / "checkpoints").mkdir()
    (own / "checkpoints" / "checkpoint").write_text("kept")
    (own / "figures").mkdir()
    for folder in ("checkpoints", "config", "figures"):
        runs.client.log_artifacts(run_id, str(own / folder), folder)
    (own / "journal.jsonl").write_text(json.dumps({"event": "start", "run_id": "another"}) + "\n")
    found = runs.find(f"resume={run_id}")
    assert found.output_dir == tmp_path / "new"
    assert {path.name for path in found.output_dir.iterdir()} == {"checkpoints", "config"}
    assert "mlp" in found.cfg.model._target_


@pytest.fixture(autouse=True)
def log_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="experiments.runs.resume")


def test_tags_of_run_identify_its_process(tmp_path: Path, composed: Compose) -> None:
    found = {**current_fingerprint(composed()).tags(), **signs_of_life(tmp_path)}
    assert found["output_dir"] == str(tmp_path)
    assert found["host"] == socket.gethostname()
    assert {"pid", "heartbeat", "fingerprint.config", "fingerprint.code", "fingerprint.data"} <= set(found)


def test_interpolation_in_stored_override_must_be_typed_again(runs: Runs) -> None:
    override = "optimizer.beta_1=${oc.env:UNSET_BETA,0.8}"
    run_id = runs.create(override)
    with pytest.raises(TrackingError) as error:
        runs.find(f"resume={run_id}")
    assert str(error.value) == (
        f"run {run_id} was started with '{override}', which contains an interpolation, an address, a place outside of "
        "the run or a key of Hydra or this command: a record must not do that. Expected plain values. If you trust it, "
        "type the same override again in this command."
    )
    assert runs.find(f"resume={run_id}", override).cfg.optimizer.beta_1 == 0.8


def test_run_without_record_is_not_composed_from_defaults(runs: Runs) -> None:
    run_id = runs.create("model=mlp")
    shutil.rmtree(runs.output_dir(run_id))
    with pytest.raises(TrackingError, match=rf"config/overrides.yaml of run {run_id} cannot be used: it is missing"):
        runs.find(f"resume={run_id}")
