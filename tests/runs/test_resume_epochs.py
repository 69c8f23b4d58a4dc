"""Limits on the number of epochs of a resumed run."""

from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag
from omegaconf import DictConfig

from experiments.errors import ConfigError
from experiments.loops import Position
from experiments.runs.resume import ResumePoint
from experiments.runs.resume_checks import refuse_epochs
from experiments.schedules import LearningRate

STEPS = 10
Found = Callable[..., ResumePoint]


@pytest.fixture
def found(composed: Callable[..., DictConfig]) -> Found:
    """Returns a resume point of a run that started with five epochs, with the overrides of the resumed run."""

    def found(status: str, *overrides: str) -> ResumePoint:
        info = RunInfo("abc", "1", "me", status, start_time=0, end_time=None, lifecycle_stage="active")
        run = Run(info, RunData(tags=[RunTag("fingerprint.epochs", "5")]))
        return ResumePoint(composed(*overrides), Path(), run)

    return found


def constant(epochs: int) -> LearningRate:
    return 0.1


def cosine(epochs: int) -> LearningRate:
    return keras.optimizers.schedules.CosineDecay(0.1, epochs * STEPS)


def test_more_epochs_are_allowed_if_no_learning_rate_changes(found: Found) -> None:
    for status, done, schedule in (("FINISHED", 5, constant), ("KILLED", 0, cosine)):
        point = found(status, "epochs=8")
        refuse_epochs(point, Position(done), STEPS, schedule)
        assert point.cfg.epochs == 8


def test_more_epochs_are_refused_if_schedule_changes(found: Found) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_epochs(found("FINISHED", "epochs=8"), Position(5), STEPS, cosine)
    assert str(error.value) == (
        "epochs=8 instead of 5 changes the schedule: the 50 steps that are done would have had other learning rates. "
        "Set epochs=5, allow it by resume_allow=[epochs], or start a new run with resume=null."
    )
    refuse_epochs(found("FINISHED", "epochs=8", "resume_allow=[epochs]"), Position(5), STEPS, cosine)


def test_single_changed_learning_rate_is_refused(found: Found) -> None:
    def piecewise(epochs: int) -> LearningRate:
        return keras.optimizers.schedules.PiecewiseConstantDecay([4321 + epochs], [0.1, 0.01])

    refuse_epochs(found("KILLED", "epochs=6"), Position(4), 1081, piecewise)
    with pytest.raises(ConfigError, match="the 4328 steps that are done would have had other learning rates"):
        refuse_epochs(found("KILLED", "epochs=6"), Position(4, 4), 1081, piecewise)


@pytest.mark.parametrize(
    ("overrides", "start", "status", "reason"),
    [
        ("epochs=5", Position(5), "FINISHED", "5 epochs are done, received epochs=5. Set epochs above 5"),
        ("epochs=3", Position(4), "KILLED", "4 epochs are done, received epochs=3. Set epochs above 4"),
        (
            "epochs=9",
            Position(4, stopped=True),
            "FINISHED",
            "4 epochs are done, and a callback ended the training, received epochs=9. Set epochs above 4",
        ),
    ],
)
def test_completed_run_is_refused(found: Found, overrides: str, start: Position, status: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_epochs(found(status, overrides), start, STEPS, constant)
    assert str(error.value) == f"resume=abc has nothing left to do: {reason}, or start a new run with resume=null."


def test_fewer_epochs_are_allowed_down_to_completed_ones(found: Found) -> None:
    # The second position is that of a run that was killed after its last epoch.
    for epochs, position in ((4, Position(2, 3)), (5, Position(5))):
        point = found("KILLED", f"epochs={epochs}")
        refuse_epochs(point, position, STEPS, constant)
        assert point.cfg.epochs == epochs
