"""The page of recorded names lists all names that a run and a sweep leave in the store, and no others."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from tests.docs.blocks import keys, text_of
from tests.trainings import Trainings

from experiments.config.registry import GROUPS

pytestmark = pytest.mark.slow
OVERRIDES = (
    *("data=npz", "data.path=rows.npz", "data.batch_size=8", "model=mlp", "model.hidden_sizes=[4]", "progress=none"),
    *("epochs=1", "tensorboard.graph=false", "logging.every_n_steps=1", "logging.system_metrics_interval=0.1"),
    *("logging.log_model=false", "logging.log_figures=false", "augment=[flip,rot90]"),
)
ABSENT = {
    *("figures", "model", "traceback.txt", "mlflow.log-model.history", "error", "stopped", "left_out"),
    *("weights_run_id", "resumed.KEY", "found_dead_by", "lost_run_id", "note", "system/NAME"),
}
"""Documented names that these runs may lack: they have no model and no figures, do not fail, and are short."""


def documented(section: str) -> set[str]:
    """Names in the first column of the table of a section."""
    _, _, text = text_of("docs/reference/names.md").partition(f"\n## {section}\n")
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


PLACEHOLDERS = {"METRIC": "accuracy", "MONITOR": "val_accuracy", "GROUP": "|".join(GROUPS)}
"""Values of parts in capital letters in these runs; other parts may have any value."""


def matches(pattern: str, name: str) -> bool:
    parts = re.split(r"([A-Z]{2,})", pattern)
    parts[1::2] = [f"(?:{PLACEHOLDERS.get(part, '.+')})" for part in parts[1::2]]
    parts[::2] = map(re.escape, parts[::2])
    return re.fullmatch("".join(parts), name) is not None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, trainings: Trainings) -> dict[str, set[str]]:
    """Names in the store after one run and a sweep of two jobs, by section of the page."""
    folder = tmp_path_factory.mktemp("recorded")
    x, y = np.random.default_rng(0).integers(0, 256, (48, 4, 4, 1), np.uint8), np.arange(48) % 2
    parts = {"train": slice(24), "val": slice(24, 36), "test": slice(36, 48)}
    arrays = {f"{axis}_{name}": data[part] for name, part in parts.items() for axis, data in (("x", x), ("y", y))}
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    for sweep in ((), ("-m", "seed=0,1")):
        done = trainings.run(folder, *sweep, *OVERRIDES)
        assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(["1"])
    assert len(runs) == 4
    return {
        "Parameters": {name for run in runs for name in run.data.params},
        "Metrics": {name for run in runs for name in run.data.metrics},
        "Tags": {name for run in runs for name in run.data.tags},
        "Artifacts": {name for run in runs for name in artifacts(client, run.info.run_id)},
    }


def artifacts(client: MlflowClient, run_id: str) -> Iterator[str]:
    for item in client.list_artifacts(run_id):
        if item.path == "config":
            yield from (file.path for file in client.list_artifacts(run_id, "config"))
        else:
            yield item.path


@pytest.mark.parametrize("section", ["Parameters", "Metrics", "Tags", "Artifacts"])
def test_page_lists_the_names_in_the_store(recorded: dict[str, set[str]], section: str) -> None:
    named, found = documented(section), recorded[section]
    assert sorted(name for name in found if not any(matches(each, name) for each in named)) == []
    in_repository = Path(".git").exists() or "mlflow.source.git.commit" in recorded["Tags"]
    expected = {name for name in named - ABSENT if in_repository or "git" not in name}
    assert sorted(each for each in expected if not any(matches(each, name) for name in found)) == []


def test_params_are_groups_keys_and_counts(recorded: dict[str, set[str]]) -> None:
    groups = {key.partition(".")[0] for key in keys()}
    others = {name for name in recorded["Parameters"] if name not in keys() and name not in groups}
    assert others == {"parameters", "trainable_parameters"}
    assert not {name for name in recorded["Parameters"] if "_target_" in name or name.startswith(("logging", "sweep"))}
