"""Reports of a job to the study, and pruning."""

import optuna
import pytest
from optuna.pruners import ThresholdPruner

from experiments.errors import StoppedRun
from experiments.sweeps.pruning import ReportToStudy

EPOCHS = 3


@pytest.fixture
def study() -> optuna.Study:
    """A study whose pruner stops every job."""
    return optuna.create_study(pruner=ThresholdPruner(lower=2))


def new_job(study: optuna.Study) -> ReportToStudy:
    return ReportToStudy(study.ask(), "val_accuracy", EPOCHS)


def test_pruner_stops_job(study: optuna.Study) -> None:
    with pytest.raises(StoppedRun) as stopped:
        new_job(study).on_epoch_end(0, {"val_accuracy": 0.5, "loss": 3.0})
    assert str(stopped.value) == "pruned after epoch 1: val_accuracy 0.5000 is behind the others"
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_job_is_not_pruned_after_last_epoch(study: optuna.Study) -> None:
    job = new_job(study)
    for epoch in range(EPOCHS - 1):
        with pytest.raises(StoppedRun):
            job.on_epoch_end(epoch, {"val_accuracy": 0.5})
    job.on_epoch_end(EPOCHS - 1, {"val_accuracy": 0.75})
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.5, 3: 0.75}


def test_resumed_job_reports_earlier_epochs() -> None:
    study = optuna.create_study()
    killed, again = new_job(study), new_job(study)
    killed.on_epoch_end(0, {"val_accuracy": 0.5})
    again.set_state(killed.get_state())
    again.on_epoch_end(1, {"val_accuracy": 0.75})
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.75}
