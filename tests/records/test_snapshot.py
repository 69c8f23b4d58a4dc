"""Snapshot of a run: writing and reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.data.base import SPLIT_RULES, DataSpec, split_rules, using_split_rules
from experiments.errors import ConfigError
from experiments.records.snapshot import (
    CONFIG,
    DATA,
    read_config,
    read_overrides,
    read_snapshot,
    write_snapshot,
)
from experiments.records.trust import typed_overrides

SPEC = DataSpec((8, 8, 1), "uint8", 2, ("Äpfel", "b"), 5, "digest", (2, 3), "drawn", ("x.png: broken",))
CFG = OmegaConf.create(
    {"seed": 3, "twice": "${seed}", "my_password": "hunter2", "logging": {"uri": "http://a:hunter2@b"}}
)


def test_snapshot_is_read_as_written(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "config", CFG, SPEC, ["seed=3", "model=mlp"])
    cfg, spec = read_snapshot(tmp_path / "config", "run 1")
    assert spec == SPEC
    assert (cfg.seed, cfg.twice) == (3, 3)
    assert read_config(tmp_path / "config", "run 1") == cfg
    assert read_overrides(tmp_path / "config", "run 1") == ["seed=3", "model=mlp"]


def test_split_rules_are_recorded_and_used_again(tmp_path: Path) -> None:
    """A spec written before the rules had a version has version 1."""
    write_snapshot(tmp_path, CFG, SPEC)
    stored = json.loads((tmp_path / DATA).read_text())
    assert stored["split_rules"] == read_snapshot(tmp_path, "run x")[1].split_rules == split_rules() == SPLIT_RULES == 3
    (tmp_path / DATA).write_text(json.dumps({key: stored[key] for key in stored if key != "split_rules"}))
    with using_split_rules(read_snapshot(tmp_path, "run x")[1].split_rules):
        assert (split_rules(), DataSpec(*[()] * 8).split_rules) == (1, 1)  # type: ignore[arg-type]
    assert split_rules() == SPLIT_RULES
    unknown: Any
    for unknown in (4, 0, "2", [2], None):
        with pytest.raises(ConfigError) as raised, using_split_rules(unknown):
            pass
        assert str(raised.value) == f"split_rules={unknown}: expected 1 to 3. Install a later release."


def test_secrets_are_not_written(tmp_path: Path) -> None:
    typed = ["seed=3", "+my_password=hunter2", "logging.tracking_uri=http://a:hunter2@b"]
    write_snapshot(tmp_path, CFG, SPEC, typed)
    for path in tmp_path.iterdir():
        assert "hunter2" not in path.read_text(encoding="utf-8"), path
    assert read_overrides(tmp_path, "run 1") == ["seed=3"]


def test_references_to_the_environment_are_written_as_typed(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "hunter2-geheim")
    words = ["+logging.tags.api_key=${oc.env:SERVICE_TOKEN}", "+logging.tags.note='run of ${oc.env:SERVICE_TOKEN}'"]
    cfg = composed(*words)
    write_snapshot(tmp_path, cfg, SPEC, typed_overrides())
    assert read_overrides(tmp_path, "run 1") == words
    assert "hunter2" not in (tmp_path / CONFIG).read_text()
    assert read_snapshot(tmp_path, "run 1")[0].logging.tags == {"api_key": "***", "note": "run of ***"}


def test_overrides_of_version_0_1_have_current_names(tmp_path: Path) -> None:
    typed = ["callbacks.terminate_on_nan=null", "~callbacks.terminate_on_nan", "logging.tracker.flush_timeout=5"]
    write_snapshot(tmp_path, CFG, SPEC, [*typed, "+logging.tracker.own=1", "callbacks.terminate_on_nan_too=null"])
    assert read_overrides(tmp_path, "run 1") == [
        "logging.flush_timeout=5",
        "+logging.own=1",
        "callbacks.terminate_on_nan_too=null",
    ]


def test_incomplete_snapshot_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_snapshot(tmp_path, CFG, SPEC)
    assert not (tmp_path / DATA).exists()
