"""A killed run goes on and ends bit for bit as if nothing had happened; `make test-kill` does this at every point."""

from typing import Any

import pytest
from tests.killing.faults import Fault
from tests.trainings import Trainings

pytestmark = pytest.mark.slow

STEP = "experiments.checkpoints.Checkpoints.on_train_batch_end"
VALIDATION = "experiments.checkpoints.Checkpoints.on_test_batch_end"
SAVE = "tensorflow.train.CheckpointManager.save"
RECORD = "tensorflow.train.CheckpointManager._record_state"


def at(call: str, number: int, when: str = "before", **more: Any) -> Fault:
    return {"call": call, "number": number, "when": when, **more}


CHAINS: dict[str, tuple[str, list[Fault]]] = {
    "around files": (
        "fit",
        [
            at("numpy.savez", 1),  # before anything is kept
            at("os.fsync", 3),
            at("os.fsync", 3, "after"),
            at("pathlib.Path.replace", 7),
            at("pathlib.Path.replace", 4, "after"),
            at("journal line", 12, "torn"),
            at("journal line", 9),
        ],
    ),
    "within TensorFlow's save": (
        "accumulation",
        [at(RECORD, 9, "without_index"), at(SAVE, 4, "during", milliseconds=2), at(SAVE, 2, "after"), at(RECORD, 6)],
    ),
    "validation": ("tape", [at(VALIDATION, 1), at(STEP, 3), at(VALIDATION, 2, "after")]),
    "the end": (
        "defaults",
        [
            at("experiments.description.write_snapshot", 1),
            at("experiments.figures.draw", 1),
            at("experiments.export.save_model", 1, "after"),
            at("mlflow.MlflowClient.log_artifacts", 3),
            at("shutil.copyfile", 9, "after"),
        ],
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_killed_run_ends_as_if_nothing_had_happened(trainings: Trainings, chain: str) -> None:
    """Weights, optimizer, best weights, every metric in MLflow and TensorBoard, figures: equal, in one finished run."""
    job, faults = CHAINS[chain]
    starts, differences = trainings.disturbed(job, *faults)
    assert differences == []
    assert [start.status for start in starts] == [-9] * len(faults) + [0]
    assert starts[-1].runs == ["FINISHED"]
