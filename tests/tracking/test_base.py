"""The base class of trackers, which records nothing."""

from pathlib import Path

import pytest

from experiments.tracking.base import Tracker, Upload


def test_base_tracker_accepts_all_calls_and_writes_nothing(tmp_path: Path) -> None:
    tracker = Tracker(output_dir=tmp_path, run_name="r")
    with tracker as run:
        run.log_params({"a": "1"})
        run.log_metrics({"loss": 1.0}, step=1)
        run.set_tags({"b": "2"})
        run.log_artifacts(Upload(tmp_path))
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_base_tracker_does_not_suppress_exceptions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), Tracker(output_dir=tmp_path, run_name="r"):
        raise ValueError("mine")
