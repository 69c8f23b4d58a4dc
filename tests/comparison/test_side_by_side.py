"""`experiments compare`: selection and order of runs, columns, formats, hostile text, and differences of two runs."""

import csv
import io
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from rich.console import Console
from tests.mlflow_server import MlflowServer

from experiments.cli.arguments import rewritten
from experiments.cli.tables import write
from experiments.comparison.side_by_side import compare, least_important
from experiments.config import check_values, register
from experiments.config.registry import CONF
from experiments.errors import ExperimentError
from experiments.records.named_run import named_run

HOSTILE = {
    "html": "<script>alert(1)</script>",
    "quotes": 'it\'s "quoted", `so`; $(rm -rf)',
    "formula": '=HYPERLINK("http://example.org")',
    "command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "escape": "\x1b]0;owned\x07\x1b[2J\x9b31m",
    "lines": "first\nsecond\r\nthird",
    "direction": "abc\u202egpj.exe",
    "emoji": "👩‍🔬🧪 données 写真",
    "markup": "[bold red]x[/] [link=file:///etc]y[/link]",
    "long": "x" * 6000,
}
RANKED = {"monitor.metric": "val_accuracy", "monitor.mode": "max", "data_digest": "d1", "fingerprint.config": "c"}


class Store:
    """A store with runs that are logged directly."""

    def __init__(self, uri: str, folder: Path | None = None) -> None:
        """Creates experiments with artifacts in `folder`; None leaves the place to the server."""
        self.uri = uri
        self.client = MlflowClient(self.uri)
        self.folder = folder
        self.time = 1_700_000_000_000

    def add(
        self,
        name: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        status: str = "FINISHED",
        experiment: str = "digits",
        files: Mapping[str, str] | None = None,
    ) -> str:
        found = self.client.get_experiment_by_name(experiment)
        artifacts = None if self.folder is None else (self.folder / "artifacts" / experiment).as_uri()
        identity = self.client.create_experiment(experiment, artifacts) if found is None else found.experiment_id
        self.time += 1000
        run_id = str(self.client.create_run(identity, start_time=self.time, run_name=name).info.run_id)
        self.client.log_batch(
            run_id,
            [Metric(key, value, self.time, 1) for key, value in (metrics or {}).items()],
            [Param(*item) for item in (params or {}).items()],
            [RunTag(*item) for item in (RANKED if tags is None else tags).items()],
        )
        for path, text in (files or {}).items():
            self.client.log_text(run_id, text, path)
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def compare(self, *typed: str) -> list[dict[str, Any]]:
        GlobalHydra.instance().clear()
        register()
        overrides = rewritten([f"logging.tracking_uri={self.uri}", *typed], "compare")
        with initialize_config_dir(CONF, version_base="1.3"):
            command = compose("compare", [*overrides, "logging.run_name=x"])
        check_values(command)
        return compare(command)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Store:
    return Store(f"sqlite:///{shutil.copy(empty_store, tmp_path)}", tmp_path)


def best(value: float) -> dict[str, float]:
    return {"best_val_accuracy": value, "best_epoch": 3, "seconds_per_epoch": 1.5, "test_accuracy": value / 2}


def test_columns_are_differing_params_and_decision_metrics(store: Store) -> None:
    params = {"model": "cnn", "optimizer.learning_rate": "0.1", "seed": "0", "logging.run_name": "a"}
    store.add("a", metrics={**best(0.5), "loss": 1.0, "batch/loss": 2.0}, params=params)
    store.add("b", metrics=best(0.75), params={**params, "optimizer.learning_rate": "0.2", "logging.run_name": "b"})
    rows = store.compare("format=json")
    columns = ["run", "run_id", "optimizer.learning_rate", "best_val_accuracy", "best_epoch", "test_accuracy"]
    assert list(rows[0]) == [*columns, "seconds_per_epoch", "status", "note"]
    assert [row["run"] for row in rows] == ["b", "a"]
    assert rows[0]["best_epoch"] == 3
    assert isinstance(rows[0]["best_epoch"], int)
    short = store.compare()[0]
    assert short["learning_rate"] == "0.2"
    assert short["run_id"] == rows[0]["run_id"][:8]


def test_values_that_a_run_lacks_are_dashes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    older = {"monitor.metric": "val_accuracy", "monitor.mode": "max"}
    store.add("older", tags={"fingerprint.config": "c"}, params=older, metrics={"val_accuracy": 0.9})
    store.add("foreign", tags={}, params={"lr": "1"})
    store.add("failed", status="FAILED")
    store.add("nan", metrics={"best_val_accuracy": float("nan"), "test_loss": float("inf")})
    store.add("running", status="RUNNING", metrics={"best_val_accuracy": 0.25})
    rows = store.compare("format=json")
    assert rows[0]["run"] == "running"
    assert {row["run"]: row["status"] for row in rows}["failed"] == "FAILED"
    assert {row["run"]: row["best_epoch"] for row in rows} == dict.fromkeys(
        ["running", "nan", "failed", "foreign", "older"]
    )
    write(rows, "json")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == rows
    write(store.compare(), "table")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ older")]
    assert len(lines) == 1
    assert "None" not in lines[0]
    assert lines[0].count(" - ") == 4  # notes have a column only if there are some


def test_newest_experiment_or_sweep_is_the_default(store: Store) -> None:
    store.add("other", experiment="cats")
    store.add("single")
    assert [row["run"] for row in store.compare()] == ["single"]
    store.add("sweep", tags={"sweep": "s1", "sweep.space": "seed"})
    for job in range(2):
        tags = {**RANKED, "sweep": "s1", "sweep.job": str(job)}
        store.add(f"job{job}", tags=tags, metrics=best(job))
    store.add("sweep", tags={"sweep": "s2", "sweep.space": "seed"})
    store.add("new", tags={**RANKED, "sweep": "s2", "sweep.job": "0"})
    assert [row["run"] for row in store.compare()] == ["new"]
    assert [row["run"] for row in store.compare("sweep=s1")] == ["job1", "job0"]
    store.add("last")
    assert {row["run"] for row in store.compare()} == {"last", "new", "job1", "job0", "single"}
    assert [row["run"] for row in store.compare("sweep=last")] == ["new"]
    assert [row["run"] for row in store.compare("logging.experiment_name=cats")] == ["other"]


def test_hostile_text_stays_text_in_every_format(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, text in HOSTILE.items():
        tags = {**RANKED, "note": text, "monitor.metric": text[:200].replace("\x00", "")}
        run_id = store.add(text[:200], tags=tags, params={"same": "1", kind: text, "varied": text})
        store.client.set_tag(run_id, "mlflow.runName", text)
    rows = store.compare("format=json")
    assert {row["run"] for row in rows} == {*HOSTILE.values()}
    write(rows, "json")
    assert json.loads(capsys.readouterr().out) == rows
    write(rows, "csv")
    text = capsys.readouterr().out
    assert "\x1b" not in text
    read = list(csv.reader(io.StringIO(text)))
    assert {len(row) for row in read} == {len(rows[0])}
    cells = [cell for row in read for cell in row]
    assert [cell for cell in cells if cell[:1] in ("=", "@", "+", "\t", "\r")] == []
    assert [cell for cell in cells if cell.startswith("-")] == []
    assert '\'=HYPERLINK("http://example.org")' in cells
    write(store.compare(), "table")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold red]x[/]" in shown
    write([{"[bold]\x1b[2Jname": None}], "table")
    assert "[bold]\\x1b[2J" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "expected"), [("-0.5", "-0.5"), ("-1e-3", "-1e-3"), ("-", "'-"), ("+x", "'+x"), (-0.5, "-0.5")]
)
def test_negative_numbers_are_no_formulas(value: object, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    write([{"=name": value}], "csv")
    assert capsys.readouterr().out.splitlines() == ["'=name", expected]


def test_best_ranks_finished_runs_with_the_monitor_and_data_of_the_newest(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    values = {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.8}
    ids = {name: store.add(name, metrics=best(value)) for name, value in values.items()}
    store.add("minimized", metrics=best(0.95), tags={**RANKED, "monitor.mode": "min"})
    store.add("loss", metrics={"best_val_loss": 0.1}, tags={**RANKED, "monitor.metric": "val_loss"})
    store.add("data", metrics=best(0.97), tags={**RANKED, "data_digest": "d2"})
    store.add("failed", metrics=best(0.98), status="FAILED")
    store.add("running", metrics=best(0.99), status="RUNNING")
    store.add("elsewhere", metrics=best(0.99), experiment="cats")
    store.add("foreign", tags={}, metrics={"best_val_accuracy": 1.0})
    store.add("newest", metrics=best(0.6))
    ranked = sorted(values | {"newest": 0.6}, key=lambda name: -(values | {"newest": 0.6})[name])
    assert [row["run"] for row in store.compare("best=4")] == ranked[:4]
    assert [row["run"] for row in store.compare("best=9", "filter=metrics.test_accuracy < 0.4")] == ["c", "newest", "a"]
    assert caplog.messages[0] == (
        f"Best run: {ids['b']} with 0.9 as best val_accuracy. Excluded of the newest 9 finished runs: "
        "3 with another monitor or none, 1 with other validation data."
    )
    assert named_run(store.client, "best", "digits").info.run_id == ids["b"]
    assert named_run(store.client, ids["a"][:9], None).info.run_id == ids["a"]
    assert named_run(store.client, "last", "cats").info.run_name == "elsewhere"
    assert [row["run"] for row in store.compare(f"runs=[{ids['a']},best]")] == ["b", "a"]


def test_smaller_is_better_if_the_monitor_is_minimized(store: Store) -> None:
    tags = {**RANKED, "monitor.metric": "val_loss", "monitor.mode": "min"}
    for name, value in {"a": 0.5, "b": -0.25, "c": 0.7}.items():
        store.add(name, metrics={"best_val_loss": value}, tags=tags)
    assert [row["run"] for row in store.compare()] == ["b", "a", "c"]
    assert [row["run"] for row in store.compare("best=2")] == ["b", "a"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["filter=nonsense here"], "the selection of runs cannot be used: Invalid clause(s)"),
        (["runs=[nothere]"], "runs=nothere is not in sqlite:///"),
        (["runs=[last,12e45678]"], "runs=12e45678 is not in sqlite:///"),
        (["diff=[last,01234567]"], "diff=01234567 is not in sqlite:///"),
        (
            ["sweep=none"],
            "is selected: expected one or more, of the experiments digits, Default. Change runs, sweep",
        ),
        (["runs=[last]", "best=3"], "runs names the runs: expected no best beside it. Leave one out."),
        (["diff=[last,last]", "filter=x", "runs=[last]"], "expected no runs or filter beside it."),
        (["best=1"], "can be ranked: expected the tags monitor.metric, monitor.mode, data_digest and metrics."),
        (["best=0"], "best=0 is out of range: expected 1 or more."),
        (["diff=[last]"], "diff=['last'] is out of range: expected two runs. Write diff=[RUN,RUN]."),
        (["runs=[last]", "note="], "note cannot be added: expected one run and a text"),
        (["note=x"], "with earlier notes 5000 characters at most, received 2 runs and 1."),
        (["runs=[last]", f"note={'x' * 5001}"], "5000 characters at most, received 1 run and 5001."),
    ],
)
def test_messages(store: Store, typed: list[str], message: str) -> None:
    for name in "ab":
        store.add(name, tags={"fingerprint.config": "c"})
    with pytest.raises(ExperimentError) as error:
        store.compare(*typed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_notes_are_added_to_the_tag(store: Store) -> None:
    run_id = store.add("a", tags={**RANKED, "mlflow.note.content": "description"})
    store.compare(f"runs=[{run_id[:8]}]", 'note=better than "b", [really]: $5')
    (row,) = store.compare("runs=[last]", "note=token=hunter2secret")
    tags = store.client.get_run(run_id).data.tags
    assert tags["note"] == row["note"] == 'better than "b", [really]: $5\ntoken=***'
    assert tags["mlflow.note.content"] == "description"


def test_of_equal_runs_the_first_is_the_best(store: Store) -> None:
    names = [store.add(name, metrics=best(0.5)) for name in ("first", "second", "third")]
    assert [row["run_id"] for row in store.compare("format=json")] == names
    assert [row["run"] for row in store.compare("best=2")] == ["first", "second"]
    assert named_run(store.client, "best", "digits").info.run_id == names[0]
    assert [row["run_id"] for row in store.compare("runs=[best,last,best]", "format=json")] == [names[0], names[2]]


def test_best_looks_beyond_the_runs_of_the_other_mode(store: Store) -> None:
    for number in range(3):
        store.add(f"other {number}", metrics=best(0.9), tags=RANKED | {"monitor.mode": "min"})
    store.add("own", metrics=best(0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.records.named_run.EXAMINED", 1)
        assert [row["run"] for row in store.compare("best=1")] == ["own"]


def test_sweep_is_named_by_its_tag_or_its_parent_run(store: Store) -> None:
    parent = store.add("parent", tags={"sweep": "0123456789ab"})
    for number in range(2):
        store.add(f"#{number}", tags=RANKED | {"sweep": "0123456789ab", "sweep.job": str(number)})
    store.add("alone")
    for name in ("0123456789ab", parent, parent[:6], "last"):
        assert {row["run"] for row in store.compare(f"sweep={name}")} == {"#0", "#1"}, name


def test_runs_of_several_data_sets_are_pointed_out(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.add("a", metrics=best(0.5))
    store.compare()
    assert caplog.text == ""
    store.add("b", metrics=best(0.6), tags=RANKED | {"data_digest": "d2"})
    store.compare()
    assert "validated on 2 different data sets: best=N compares runs of one." in caplog.text


def test_params_named_as_other_columns_keep_their_complete_names(store: Store) -> None:
    for value in "12":
        params = {f"callbacks.x.{name}": value for name in ("run", "status", "note", "best_epoch")}
        store.add(f"run {value}", metrics=best(0.5), params=params)
    rows = store.compare()
    assert [row["run"] for row in rows] == ["run 1", "run 2"]
    assert [row["callbacks.x.run"] for row in rows] == ["1", "2"]
    assert [row["best_epoch"] for row in rows] == [3, 3]


def test_narrow_terminal_leaves_params_out_before_the_monitor(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        params = {f"group.parameter_{key}": f"{number}.12345678901" for key in range(9)}
        store.add(f"#{number} learning_rate=0.01", metrics=best(0.12345), params=params)
    rows = store.compare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.cli.tables.console", lambda: Console(width=80))
        write(rows, "table", least_important(rows[0]), wrapped=("run",))
    output = capsys.readouterr().out
    assert "0.1235" in output
    assert "FINISHED" in output
    assert all(row["run_id"] in output for row in rows)
    assert "Not shown: seconds_per_epoch, test_accuracy" in output


CONFIG_A = "seed: 0\nepochs: 5\noptimizer:\n  learning_rate: 0.1\n"
PATCH = "# untracked: notes.txt\ndiff --git a/src/a.py b/src/a.py\n--- a/src/a.py\n+++ b/src/a.py\n-x\n+y\n"


def test_differences_of_two_runs(store: Store) -> None:
    tags = {**RANKED, "mlflow.source.git.commit": "c1", "version.keras": "3.15", "cpu": "X"}
    files = {"config/config.yaml": CONFIG_A, "config/git.diff": PATCH, "config/environment.txt": "# P\na==1\nb==2\n"}
    store.add("a", metrics=best(0.5), tags=tags, files=files, params={"seed": "0", "model": "cnn"})
    files = {
        "config/config.yaml": CONFIG_A.replace("0.1", "0.2"),
        "config/git.diff": PATCH.partition("\n")[2] + "diff --git a/b.py b/b.py\n-x\n",
        "config/environment.txt": "a==1\nb==3\nc==1\n",
    }
    tags |= {"mlflow.source.git.commit": "c2", "heartbeat": "1", "cpu": "Y"}
    store.add("b", metrics={**best(0.5), "loss": 2.0}, tags=tags, files=files, params={"seed": "0", "model": "mlp"})
    first, second = (store.client.search_runs(["1"])[at].info.run_id for at in (1, 0))
    rows = [tuple(row.values()) for row in store.compare(f"diff=[{first},{second}]", "format=json")]
    (patch,) = [row for row in rows if row[1] == "patch b.py"]
    assert patch[2] is None
    assert patch[3].startswith("1 line, ")
    assert [row for row in rows if row != patch] == [
        ("run", "id", first, second),
        ("run", "name", "a", "b"),
        ("config", "model", "cnn", "mlp"),
        ("config", "optimizer.learning_rate", "0.1", "0.2"),
        ("code", "mlflow.source.git.commit", "c1", "c2"),
        ("environment", "cpu", "X", "Y"),
        ("environment", "b", "2", "3"),
        ("environment", "c", None, "1"),
        ("metrics", "loss", None, 2.0),
    ]


@pytest.mark.slow
def test_runs_of_a_server_are_compared_as_those_of_a_file(server: MlflowServer, store: Store) -> None:
    answers = []
    for each in (Store(server.uri), store):
        runs = [
            each.add(name, metrics=best(value), params={"model": name}, experiment="compared", files=files)
            for name, value, files in (("cnn", 0.5, {"config/config.yaml": CONFIG_A}), ("mlp", 0.75, {}))
        ]
        selections = ("best=1", "filter='params.model = \"cnn\"'", f"runs=[{runs[0][:10]}]", f"diff=[{runs[0]},best]")
        chosen = [each.compare("logging.experiment_name=compared", "format=json", typed) for typed in selections]
        noted = each.compare(f"runs=[{runs[1]}]", "note='a note'", "format=json")
        text = json.dumps([*chosen, noted])
        answers.append(text.replace(runs[0], "FIRST").replace(runs[1], "SECOND"))
    assert '"note": "a note"' in answers[0]
    assert '"optimizer.learning_rate"' in answers[0]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ${oc.env:HOME}", "it is not a mapping, or has an interpolation"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: &x [1]\nb: *x", "it has an alias"),
        ("x" * 10_000_001, "config.yaml is larger than 10 MB"),
    ],
)
def test_config_of_a_run_is_not_trusted(store: Store, text: str, message: str) -> None:
    store.add("a")
    store.add("b", files={"config/config.yaml": text})
    with pytest.raises(ExperimentError, match=message) as error:
        store.compare(f"diff=[{store.client.search_runs(['1'])[1].info.run_id},last]")
    assert "\n" not in str(error.value)
