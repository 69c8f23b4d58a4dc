"""Results that cannot be saved cost neither the run nor its other results."""

import errno
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.data import Splits, from_arrays
from experiments.loops.evaluation import Predictions
from experiments.runs import figures, results, saved_model
from experiments.tracking.base import Tracker

HISTORY = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.8]}


class RecordingTracker(Tracker):
    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags


Save = Callable[..., str | None]


@pytest.fixture
def save(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Save:
    """Returns a function that saves the results of a run with random outputs, and returns the tag `left_out`."""

    def save(names: list[str], *, channels: int = 1, outputs: int | None = None, log_model: bool = False) -> str | None:
        rng, count = np.random.default_rng(0), len(names)
        labels = np.array([0, count - 1, 1, 0])
        images = rng.integers(0, 256, (4, 4, 3, channels)).astype(np.uint8)
        splits: Splits = from_arrays(
            (images, labels), (images, labels), class_names=names, batch_size=2, shuffle=False, seed=0
        )
        found = Predictions(labels, rng.normal(size=(4, outputs or count)).astype(np.float32))
        monkeypatch.setattr(results, "best_predictions", lambda _: found)
        model = keras.Sequential(
            [keras.Input((4, 3, channels)), keras.layers.Flatten(), keras.layers.Dense(outputs or 2)]
        )
        cfg: DictConfig = OmegaConf.create({"loss": {}, "logging": {"log_model": log_model, "log_figures": True}})
        tracker = RecordingTracker()
        results.save_results(cfg, model, splits, HISTORY, 1, tmp_path, tracker)
        return tracker.tags.get("left_out")

    return save


NAMES = {
    "dollars": ["$50_to_$100", "under_$50", "a$b$c"],
    "Chinese": ["猫", "狗", "鸟"],
    "Japanese, Arabic, Hindi": ["ねこ", "قطة", "बिल्ली"],
    "formula": [r"$\frac$", "x^2_3", "100%"],
    "braces and brackets": ["{a}", "[b]", "<c> & \\d"],
    "emoji": ["🐱", "🐶", "x"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_class_names_are_drawn_as_text_without_warnings(save: Save, tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save(NAMES[kind]) is None
    written = [path.stem for path in (tmp_path / "figures").iterdir()]
    assert sorted(written) == ["confusion_matrix", "curves", "most_wrong", "per_class", "predictions"]


@pytest.mark.parametrize("channels", [2, 5, 13])
def test_images_without_colours_are_left_out(
    save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int
) -> None:
    with caplog.at_level(logging.WARNING):
        left_out = save(["a", "b"], channels=channels)
    assert left_out is not None
    assert left_out.startswith("most_wrong (Invalid shape")
    assert caplog.messages == [f"The run is complete, but without {left_out}."]
    written = [path.stem for path in (tmp_path / "figures").iterdir()]
    assert sorted(written) == ["binary", "confusion_matrix", "curves", "per_class", "predictions"]


def test_matrix_of_a_hundred_thousand_classes_is_left_out(save: Save) -> None:
    left_out = save(list(map(str, range(100_235))))
    assert left_out == "confusion_matrix (100,235 classes, expected at most 1,000)"


def test_one_output_for_two_classes_is_saved_without_its_figures(save: Save, tmp_path: Path) -> None:
    left_out = save(["a", "b"], outputs=1, log_model=True)
    assert left_out == "classes (outputs: 1 for 2 classes, expected as many)"
    assert (tmp_path / "model" / "MLmodel").exists()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["curves.png"]


def test_model_is_saved_first_and_may_fail(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        assert not (tmp_path / "figures").exists()
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "MLmodel").touch()
        raise ValueError("no\n way.")

    monkeypatch.setattr(saved_model, "save_model", fail)
    assert save(["a", "b"], log_model=True) == "model (no way)"
    assert not (tmp_path / "model").exists()  # an incomplete one would be uploaded
    assert (tmp_path / "figures" / "confusion_matrix.png").exists()


def test_full_disk_is_an_error(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saved_model, "save_model", fail)
    with pytest.raises(OSError, match="No space left"):
        save(["a", "b"], log_model=True)


def test_resumed_run_shows_nothing_of_the_results_before(
    composed: Callable[..., DictConfig], empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from experiments.runs.run import run

    def save_model(*arguments: Any, **_: object) -> None:
        folder: Path = arguments[-1]
        folder.mkdir()
        (folder / f"{len(list(tmp_path.glob('run*')))}.bin").touch()
        (folder / "MLmodel").touch()

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no font")

    store = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    client = MlflowClient(store)
    fixed = ("data=digits", "data.limit=20", "model=mlp", "progress=none", "tensorboard.graph=false")
    cfg = composed(*fixed, "epochs=1", f"logging.tracking_uri={store}")
    monkeypatch.setattr(saved_model, "save_model", save_model)
    (tmp_path / "run 1").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(figures, "draw", fail)
        run_id = run(cfg, tmp_path / "run 1").run_id
    assert run_id is not None
    assert client.get_run(run_id).data.tags["left_out"] == "figures (no font)"
    assert [artifact.path for artifact in client.list_artifacts(run_id, "model")] == ["model/1.bin", "model/MLmodel"]
    client.set_tag(run_id, "error", "ValueError: stopped at first")
    cfg.merge_with({"resume": run_id, "epochs": 2})
    (tmp_path / "run 2").mkdir()
    run(cfg, tmp_path / "run 2")
    tags = client.get_run(run_id).data.tags
    assert (tags["left_out"], tags["error"], "stopped" in tags) == ("none", "none", False)
    assert [artifact.path for artifact in client.list_artifacts(run_id, "model")] == ["model/2.bin", "model/MLmodel"]
    # The model in the store must not be older than the metrics of the run.
    cfg.merge_with({"epochs": 3, "logging": {"log_model": False}})
    (tmp_path / "run 3").mkdir()
    run(cfg, tmp_path / "run 3")
    assert [artifact.path for artifact in client.list_artifacts(run_id, "model")] == ["model/3.bin", "model/MLmodel"]
