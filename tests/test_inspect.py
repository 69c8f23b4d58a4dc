"""The command `inspect` prints a report, writes a page, and leaves no other file."""

from pathlib import Path

from tests.trainings import Trainings


def inspected(trainings: Trainings, folder: Path, *overrides: str) -> str:
    done = trainings.run(folder, *overrides, door="inspect", store=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_inspect_prints_report_and_writes_page(trainings: Trainings, tmp_path: Path) -> None:
    shown = inspected(trainings, tmp_path, "data=digits", "samples=2")
    assert shown.splitlines()[0] == "sklearn.datasets.load_digits"
    assert "every one is 8 x 8 pixels." in shown
    assert shown.endswith("With pictures: inspect.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["inspect.html"]


def test_inspect_without_output_writes_nothing(trainings: Trainings, tmp_path: Path) -> None:
    assert "Nothing odd was found." in inspected(trainings, tmp_path, "data=digits", "output=null")
    assert list(tmp_path.iterdir()) == []
