"""What the study of a sweep is told of a job, and when it gives one up."""

import optuna
import pytest
from optuna.pruners import ThresholdPruner

from experiments.errors import StoppedRun
from experiments.sweeps.pruning import ReportToStudy

EPOCHS = 3


@pytest.fixture
def study() -> optuna.Study:
    """It gives everything up."""
    return optuna.create_study(pruner=ThresholdPruner(lower=2))


def watch(study: optuna.Study) -> ReportToStudy:
    return ReportToStudy(study.ask(), "val_accuracy", EPOCHS)


def test_the_study_stops_a_job(study: optuna.Study) -> None:
    with pytest.raises(StoppedRun) as stopped:
        watch(study).on_epoch_end(0, {"val_accuracy": 0.5, "loss": 3.0})
    assert str(stopped.value) == "pruned after epoch 1: val_accuracy 0.5000 is behind the others"
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_a_job_that_has_run_all_epochs_is_kept(study: optuna.Study) -> None:
    job = watch(study)
    for epoch in range(EPOCHS - 1):
        with pytest.raises(StoppedRun):
            job.on_epoch_end(epoch, {"val_accuracy": 0.5})
    job.on_epoch_end(EPOCHS - 1, {"val_accuracy": 0.75})
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.5, 3: 0.75}


def test_a_job_that_goes_on_brings_its_earlier_epochs() -> None:
    study = optuna.create_study()
    killed, again = watch(study), watch(study)
    killed.on_epoch_end(0, {"val_accuracy": 0.5})
    again.set_state(killed.get_state())
    again.on_epoch_end(1, {"val_accuracy": 0.75})
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.75}
