"""Events survive killed processes, power failures and an absent store, as tests/tracking/power_failure.py simulates."""

import json
import os
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from tests.tracking.power_failure import FOLDER, Schedule, Store
from tests.tracking.simulated_disk import Disk
from tests.trainings import Trainings

from experiments.files import sync
from experiments.tracking.journal import Journal, deliver

SEEDS, SEEDS_PER_TEST = 2000, 500
OVERRIDES = [
    *("data=digits", "data.limit=200", "model=mlp", "epochs=2", "progress=none", "logging.log_model=false"),
    *("checkpoint.every_n_steps=2", "checkpoint.every_epoch=true", "logging.every_n_steps=1"),
    *("logging.log_figures=false", "logging.system_metrics=false", "tensorboard.graph=false", "hydra.run.dir=out"),
]


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_promised_events_are_neither_lost_nor_doubled(first: int, caplog: pytest.LogCaptureFixture) -> None:
    """`python -m tests.tracking.power_failure 100000` plays more schedules."""
    caplog.set_level("CRITICAL")
    cuts = 0
    for seed in range(first, first + SEEDS_PER_TEST):
        schedule = Schedule(seed)
        schedule.play()
        cuts += schedule.cuts
    assert cuts > SEEDS_PER_TEST / 2


def test_offset_on_the_disk_never_counts_lines_that_take_the_place_of_lost_ones() -> None:
    """Two power failures: the first loses the lines but not the offset, the second all changes of the offset."""
    disk, store = Disk(Random(0), ordered=True), Store(Random(0))
    store.reliable = True
    with disk.mounted():
        for life in range(3):
            journal = Journal(FOLDER)
            FOLDER.mkdir(parents=True, exist_ok=True)
            sync(FOLDER.parent)
            journal.open()
            for number in range(100 + 10 * life, 105 + 10 * life):
                journal.append("tags", values={"id": number})
            if life == 0:
                deliver(FOLDER, store)
                del disk.find(FOLDER / "journal.jsonl").versions[1:]
                del disk.find(FOLDER / "journal.offset").versions[:-1]
            else:
                journal.sync()
                del disk.find(FOLDER / "journal.offset").versions[1:]
            disk.cut_power()
        deliver(FOLDER, store)
    assert sorted(store.received) == [*range(100, 105), *range(110, 115), *range(120, 125)]


def train_recording_syncs(folder: str) -> None:
    """Trains, and writes the size of the journal at each commit and at the end, with the part that was synced."""
    from experiments import train

    os.chdir(folder)
    journal, synced, found = Path("out/journal.jsonl"), [0], []

    def fsync(file: int) -> None:
        real_fsync(file)
        if journal.exists() and os.path.samestat(os.fstat(file), journal.stat()):
            synced.append(journal.stat().st_size)

    def replace(source: str, target: str) -> None:
        if Path(target).match("checkpoints/ckpt-*.json"):
            found.append((Path(target).name, journal.stat().st_size, synced[-1]))
        real_replace(source, target)

    real_fsync, real_replace = os.fsync, os.replace
    arguments = mock.patch("sys.argv", ["train", *OVERRIDES])
    with mock.patch("os.fsync", fsync), mock.patch("os.replace", replace), arguments:
        train.main()
    found.append(("end", journal.stat().st_size, synced[-1]))
    Path("found.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_events_are_synced_before_each_checkpoint_and_at_the_end(
    trainings: Trainings, tmp_path: Path, empty_store: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    with trainings.calling(train_recording_syncs, str(tmp_path)) as process:
        assert process.wait() == 0, process.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    names = [name for name, _, _ in found]
    assert len(names) > 3, names
    assert names[-1] == "end"
    assert [size for _, size, _ in found] == [synced for _, _, synced in found]
    assert found[-1][1] > found[-2][1] > found[0][1] > 0
