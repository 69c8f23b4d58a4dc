"""Names of runs in a store: unique within an experiment, also for hostile names and runs that start at once."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import RestException

from experiments.tracking.mlflow_sink import MlflowSink
from experiments.tracking.mlflow_store import name_run, open_store

PRIMARY = "mlflow.experiment.primaryMetric.name"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> MlflowClient:
    return open_store(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('names'))}")


@pytest.fixture
def experiment(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    return str(client.create_experiment(request.node.name))


def named(client: MlflowClient, experiment: str, name: str) -> tuple[str, str]:
    """Id and name of a new run that asks for `name`."""
    run_id = client.create_run(experiment, run_name=name).info.run_id
    name_run(client, run_id, name)
    return run_id, str(client.get_run(run_id).info.run_name)


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        ("baseline", "-"),
        ("#2 learning_rate=0.01 dropout=0.4", " "),
        ('it\'s "q" 100% _x_ \\ ` ;-- x', " "),
        ("a\nb <b>😀</b>\x1b[31m", " "),
        ("' OR 1=1", " "),
        ("x" * 250, "-"),
    ],
)
def test_second_run_of_a_name_gets_a_suffix(client: MlflowClient, experiment: str, name: str, separator: str) -> None:
    first, second = named(client, experiment, name), named(client, experiment, name)
    assert first[1] == name
    assert second[1] == f"{name[:245]}{separator}{second[0][:4]}"
    for run_id, before in (first, second):  # a repeated delivery
        name_run(client, run_id, name)
        assert len(before) <= 250
    assert client.get_run(second[0]).info.run_name == second[1]


def test_generated_name_always_ends_in_the_id(client: MlflowClient, experiment: str) -> None:
    run_id, name = named(client, experiment, "cnn-digits-")
    assert name == f"cnn-digits-{run_id[:4]}"


def test_suffix_is_longer_if_taken(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment, run_name="cnn-digits-").info.run_id
    for length in (4, 8):
        client.create_run(experiment, run_name=f"cnn-digits-{run_id[:length]}")
    name_run(client, run_id, "cnn-digits-")
    assert client.get_run(run_id).info.run_name == f"cnn-digits-{run_id[:16]}"


def test_name_given_in_mlflow_is_kept(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment, run_name="baseline").info.run_id
    client.update_run(run_id, name="the good one")
    name_run(client, run_id, "baseline")
    assert client.get_run(run_id).info.run_name == "the good one"


def test_other_experiments_do_not_matter(client: MlflowClient, experiment: str) -> None:
    elsewhere = str(client.create_experiment("elsewhere"))
    assert [named(client, each, "same")[1] for each in (experiment, elsewhere)] == ["same"] * 2


def test_runs_that_start_at_once_have_different_names(client: MlflowClient, experiment: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: named(client, experiment, "same"), range(16)))
    names = [run.info.run_name for run in client.search_runs([experiment])]
    assert len(set(names)) == 16
    assert all(name == "same" or name.startswith("same-") for name in names)


def sent(client: Any, run_id: str, metric: str) -> None:
    MlflowSink(client, run_id).send([{"event": "params", "time": 1, "values": {"monitor.metric": metric}}])


def test_experiment_opens_on_best_value_of_newest_monitor(client: MlflowClient, experiment: str) -> None:
    for metric in ("val_accuracy", "val_loss"):
        sent(client, client.create_run(experiment).info.run_id, metric)
        assert client.get_experiment(experiment).tags[PRIMARY] == f"best_{metric}"
    client.set_experiment_tag(experiment, PRIMARY, "test_loss")
    sent(client, client.create_run(experiment).info.run_id, "val_accuracy")
    assert client.get_experiment(experiment).tags[PRIMARY] == "test_loss"


def test_missing_permission_for_the_experiment_is_ignored(
    client: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    run_id = client.create_run(experiment).info.run_id
    sent(client, run_id, "val_accuracy")
    assert client.get_run(run_id).data.params == {"monitor.metric": "val_accuracy"}
    assert PRIMARY not in client.get_experiment(experiment).tags
