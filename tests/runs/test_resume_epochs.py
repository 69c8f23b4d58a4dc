"""How many epochs a run may go on for."""

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
    """A run that began with five epochs, and the words it goes on with."""

    def found(status: str, *words: str) -> ResumePoint:
        info = RunInfo("abc", "1", "me", status, start_time=0, end_time=None, lifecycle_stage="active")
        run = Run(info, RunData(tags=[RunTag("fingerprint.epochs", "5")]))
        return ResumePoint(composed(*words), Path(), run)

    return found


def constant(epochs: int) -> LearningRate:
    return 0.1


def cosine(epochs: int) -> LearningRate:
    return keras.optimizers.schedules.CosineDecay(0.1, epochs * STEPS)


def test_more_epochs_are_free_where_no_step_changes(found: Found) -> None:
    for status, done, schedule in (("FINISHED", 5, constant), ("KILLED", 0, cosine)):
        point = found(status, "epochs=8")
        refuse_epochs(point, Position(done), STEPS, schedule)
        assert point.cfg.epochs == 8


def test_more_epochs_under_another_schedule(found: Found) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_epochs(found("FINISHED", "epochs=8"), Position(5), STEPS, cosine)
    assert str(error.value) == (
        "epochs=8 instead of 5 changes the schedule: the 50 steps that are done would have had other learning rates. "
        "Set epochs=5, allow it by resume_allow=[epochs], or begin anew with resume=null."
    )
    refuse_epochs(found("FINISHED", "epochs=8", "resume_allow=[epochs]"), Position(5), STEPS, cosine)


def test_one_step_of_thousands_under_another_rate(found: Found) -> None:
    def piecewise(epochs: int) -> LearningRate:
        return keras.optimizers.schedules.PiecewiseConstantDecay([4321 + epochs], [0.1, 0.01])

    refuse_epochs(found("KILLED", "epochs=6"), Position(4), 1081, piecewise)
    with pytest.raises(ConfigError, match="the 4328 steps that are done would have had other learning rates"):
        refuse_epochs(found("KILLED", "epochs=6"), Position(4, 4), 1081, piecewise)


@pytest.mark.parametrize(
    ("words", "start", "status", "told"),
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
def test_nothing_left_to_do(found: Found, words: str, start: Position, status: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_epochs(found(status, words), start, STEPS, constant)
    assert str(error.value) == f"resume=abc has nothing left to do: {told}, or begin anew with resume=null."


def test_fewer_epochs_than_planned_but_not_than_done(found: Found) -> None:
    # The second is the end of a run that was killed while it finished.
    for epochs, position in ((4, Position(2, 3)), (5, Position(5))):
        point = found("KILLED", f"epochs={epochs}")
        refuse_epochs(point, position, STEPS, constant)
        assert point.cfg.epochs == epochs
