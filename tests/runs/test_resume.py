"""Which run goes on, and what it refuses to go on with."""

import json
import logging
import shutil
import socket
import time
from pathlib import Path

import pytest
from tests.stopped_runs import THREADS, Compose, Runs, now

from experiments.errors import ConfigError, TrackingError
from experiments.runs import resume, resume_checks
from experiments.tracking.liveness import HEARTBEAT_SECONDS, Heartbeat, is_alive, run_lock, signs_of_life


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}"


@pytest.fixture
def runs(composed: Compose, store: str, tmp_path: Path) -> Runs:
    return Runs(composed, store, tmp_path)


def test_no_resume_is_a_new_run(runs: Runs, tmp_path: Path) -> None:
    runs.begun()
    assert runs.origin().run_id is None
    assert runs.origin().output_dir == tmp_path / "new"


@pytest.mark.parametrize("which", ["last", "0123456789abcdef"])
def test_without_a_record_of_runs(composed: Compose, tmp_path: Path, which: str) -> None:
    with pytest.raises(ConfigError) as error:
        resume.find_resume_point(composed("logging=none", f"resume={which}"), tmp_path)
    assert str(error.value) == f"resume={which} needs a record of runs, which logging=none does not keep."


def test_last_begins_a_run_where_none_is(composed: Compose, runs: Runs, tmp_path: Path) -> None:
    absent = composed(f"logging.tracking_uri=sqlite:///{tmp_path}/absent.db", "resume=last")
    assert resume.find_resume_point(absent, tmp_path).run_id is None
    assert not (tmp_path / "absent.db").exists()
    assert runs.origin("resume=last").run_id is None


def test_last_is_the_newest_unfinished_run_of_this_config(runs: Runs) -> None:
    runs.begun(status="FINISHED")
    older = runs.begun(status="FAILED")
    assert runs.origin("resume=last").run_id == older
    newer = runs.begun(status="RUNNING")
    runs.begun("seed=1")
    assert runs.origin("resume=last").run_id == newer
    assert runs.origin("resume=last", "epochs=9", "progress=none", "checkpoint.every_n_steps=3").run_id == newer
    assert runs.origin("resume=last", "seed=2").run_id is None


def test_last_leaves_a_run_to_the_process_that_works_on_it(runs: Runs) -> None:
    older, newer = runs.begun(status="RUNNING"), runs.begun(status="RUNNING")
    with run_lock(runs.output_dir(newer)):
        assert runs.origin("resume=last").run_id == older
    assert runs.origin("resume=last").run_id == newer


def test_last_does_nothing_that_a_process_does_already(runs: Runs, tmp_path: Path) -> None:
    older, newer = runs.begun(status="RUNNING"), runs.begun(status="RUNNING")
    together = runs.origin("resume=last")
    with run_lock(runs.output_dir(newer)):
        with pytest.raises(TrackingError) as error:
            runs.checked("resume=last")
        with pytest.raises(TrackingError, match=f"again what run {newer} does"):
            resume_checks.check_resume(together, now(together.cfg), tmp_path / "new")
        assert runs.checked("resume=last", data="f" * 64).run_id is None
    assert str(error.value) == (
        f"resume=last would do again what run {newer} does: a process on {socket.gethostname()} works in "
        f"'{runs.output_dir(newer)}'. Expected no other run of this config and data at work. Wait for its end, or "
        "stop it; resume=null begins another."
    )
    with run_lock(runs.output_dir(older)):
        assert runs.checked("resume=last").run_id == newer


def test_a_run_that_goes_on_keeps_its_folder_and_name(runs: Runs, tmp_path: Path) -> None:
    run_id = runs.begun()
    found = runs.checked("resume=last")
    assert (found.run_id, found.output_dir) == (run_id, runs.output_dir(run_id))
    assert found.cfg.logging.run_name == "run-1"
    assert (tmp_path / "new" / "resumed").resolve() == runs.output_dir(run_id).resolve()
    assert dict(found.changed) == {}


def test_a_run_that_was_not_described_is_so_now(runs: Runs) -> None:
    runs.begun(described=False)
    found = runs.checked("resume=last")
    assert found.run_id is not None
    assert found.recorded is None


def test_an_unknown_run(runs: Runs, store: str) -> None:
    with pytest.raises(TrackingError) as error:
        runs.origin("resume=0123456789abcdef")
    assert str(error.value) == (
        f"resume=0123456789abcdef is not in {store}: Run with id=0123456789abcdef not found. Set resume to the "
        "id of a run in that store, as MLflow's page shows it, or logging.tracking_uri to the run's store."
    )


def test_a_run_that_is_alive(runs: Runs) -> None:
    run_id = runs.begun(status="RUNNING", pid="123", host="there")
    with run_lock(runs.output_dir(run_id)), pytest.raises(TrackingError) as error:
        runs.origin(f"resume={run_id}")
    assert str(error.value) == (
        f"resume={run_id} is alive: process 123 on there works on it. "
        "Expected a run that nobody works on. Wait for its end, or stop it."
    )


@pytest.mark.parametrize(
    ("host", "silent", "status", "alive"),
    [
        ("elsewhere", 10, "RUNNING", True),
        ("elsewhere", HEARTBEAT_SECONDS + 10, "RUNNING", False),
        ("elsewhere", 10, "KILLED", False),
        (socket.gethostname(), 10, "RUNNING", False),
    ],
)
def test_who_is_alive_without_a_lock(runs: Runs, host: str, silent: float, status: str, alive: bool) -> None:
    run_id = runs.begun(status=status, host=host, heartbeat=f"{time.time() - silent:.0f}")
    assert is_alive(runs.client.get_run(run_id)) == alive


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.liveness.LOOK_SECONDS", 0.05)


def test_the_silence_of_a_lost_machine_is_waited_for(runs: Runs, often: None, caplog: pytest.LogCaptureFixture) -> None:
    last = time.time() - HEARTBEAT_SECONDS + 2
    run_id = runs.begun(status="RUNNING", host="elsewhere", heartbeat=f"{last:.0f}")
    assert runs.origin("resume=last").run_id == run_id
    assert f"Run {run_id} may still be at work on elsewhere: waiting for its next sign of life" in caplog.text


def test_the_next_sign_of_a_process_elsewhere_is_waited_for(runs: Runs, often: None) -> None:
    run_id = runs.begun(status="RUNNING", host="elsewhere", heartbeat=f"{time.time() - 10:.0f}")
    signs = Heartbeat(lambda: runs.client.set_tag(run_id, "heartbeat", f"{time.time():.0f}"), interval=0.5)
    signs.start()
    with pytest.raises(TrackingError, match=f"resume={run_id} is alive: process .* on elsewhere works on it"):
        runs.origin(f"resume={run_id}")
    signs.stop()


def test_a_run_id_alone_composes_what_was_typed(runs: Runs) -> None:
    run_id = runs.begun("model=mlp", "model.dropout=0.4", "optimizer.learning_rate=0.02", "resume=last", "epochs=7")
    found = runs.checked(f"resume={run_id}")
    assert found.cfg.model.dropout == 0.4
    assert found.cfg.optimizer.learning_rate == 0.02
    assert (found.cfg.epochs, found.cfg.resume) == (7, run_id)
    more = runs.checked(f"resume={run_id}", "epochs=9")
    assert more.cfg.epochs == 9


@pytest.mark.parametrize("began", [("model=mlp",), ("+logging.tags.purpose=test",), ("~metrics.accuracy",)])
def test_words_that_are_typed_again(runs: Runs, began: tuple[str, ...]) -> None:
    run_id = runs.begun(*began)
    assert runs.checked(f"resume={run_id}", *began).run_id == run_id


def test_another_value_is_refused_by_its_name(runs: Runs) -> None:
    run_id = runs.begun()
    with pytest.raises(ConfigError) as error:
        runs.checked(f"resume={run_id}", "optimizer.learning_rate=0.5", "data.batch_size=4")
    assert str(error.value) == (
        f"resume={run_id} would go on differently: data.batch_size was 32, now 4; "
        "optimizer.learning_rate was 0.001, now 0.5. Expected what the run began with. Change it back, allow it by "
        "resume_allow=[data.batch_size,optimizer.learning_rate], or begin anew with resume=null."
    )


@pytest.mark.parametrize("part", ["code", "versions", "data"])
def test_what_is_no_value_is_refused_too(runs: Runs, part: str) -> None:
    run_id = runs.begun()
    before = getattr(now(runs.cfg()), part)[:12]
    with pytest.raises(ConfigError) as error:
        runs.checked(f"resume={run_id}", **{part: "f" * 64})
    assert f"would go on differently: {part} was {before}, now ffffffffffff (other {part})." in str(error.value)
    allowed = runs.checked(f"resume={run_id}", f"resume_allow=[{part}]", **{part: "f" * 64})
    assert dict(allowed.changed) == {f"resumed.{part}": f"ffffffffffff (other {part})"}


def test_what_is_allowed_leaves_a_tag(runs: Runs) -> None:
    run_id = runs.begun()
    words = (f"resume={run_id}", "optimizer.learning_rate=0.5", "optimizer.beta_1=0.8")
    assert dict(runs.checked(*words, "resume_allow=[optimizer]").changed) == {
        "resumed.optimizer.learning_rate": "0.5",
        "resumed.optimizer.beta_1": "0.8",
    }
    with pytest.raises(ConfigError, match=r"allow it by resume_allow=\[optimizer\.learning_rate\]"):
        runs.checked(*words, "resume_allow=[optimizer.beta_1]")


def test_threads_are_kept(runs: Runs) -> None:
    run_id = runs.begun()
    assert runs.origin(f"resume={run_id}").threads == THREADS
    with pytest.raises(ConfigError, match=r"runtime\.threads was 2, now 1\."):
        runs.checked(f"resume={run_id}", "runtime.threads=1")


def test_another_number_of_devices_is_refused(runs: Runs) -> None:
    run_id = runs.begun("runtime.strategy=mirrored")
    told = "replicas was 1, now 2 (devices that share each batch)"
    with pytest.raises(ConfigError) as error:
        runs.checked(f"resume={run_id}", replicas=2)
    assert f"resume={run_id} would go on differently: {told}." in str(error.value)
    allowed = runs.checked(f"resume={run_id}", "resume_allow=[replicas]", replicas=2)
    assert dict(allowed.changed) == {"resumed.replicas": "2 (devices that share each batch)"}


def test_last_begins_anew_on_other_data(runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_id = runs.begun()
    found = runs.checked("resume=last", data="f" * 64)
    assert (found.run_id, found.output_dir) == (None, tmp_path / "new")
    # What is in this folder is uploaded.
    assert list((tmp_path / "new").iterdir()) == []
    assert caplog.messages == [f"Run {run_id} began with other data; beginning a new run."]


def test_another_processor_is_named(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    run_id = runs.begun()
    before = now(runs.cfg()).cpu
    found = runs.checked(f"resume={run_id}", cpu="Abacus 9")
    assert dict(found.changed) == {"resumed.cpu": "Abacus 9"}
    assert caplog.messages == [f"Run {run_id} began on {before}; its last bits may differ now."]


def test_a_run_whose_folder_is_gone_comes_from_the_store(runs: Runs, tmp_path: Path) -> None:
    """As on another machine, whose own files may be in a folder of that name."""
    run_id = runs.begun("model=mlp")
    own = runs.output_dir(run_id)
    (own / "checkpoints").mkdir()
    (own / "checkpoints" / "checkpoint").write_text("kept")
    (own / "figures").mkdir()
    for folder in ("checkpoints", "config", "figures"):
        runs.client.log_artifacts(run_id, str(own / folder), folder)
    (own / "journal.jsonl").write_text(json.dumps({"event": "start", "run_id": "another"}) + "\n")
    found = runs.origin(f"resume={run_id}")
    assert found.output_dir == tmp_path / "new"
    assert {path.name for path in found.output_dir.iterdir()} == {"checkpoints", "config"}
    assert "mlp" in found.cfg.model._target_


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="experiments.runs.resume")


def test_the_identity_of_a_run_names_its_process(tmp_path: Path, composed: Compose) -> None:
    found = {**now(composed()).tags(), **signs_of_life(tmp_path)}
    assert found["output_dir"] == str(tmp_path)
    assert found["host"] == socket.gethostname()
    assert {"pid", "heartbeat", "fingerprint.config", "fingerprint.code", "fingerprint.data"} <= set(found)
