"""The command `inspect` prints a report, writes a page, and leaves no other file."""

from pathlib import Path

from tests.conftest import paint
from tests.trainings import Trainings

from experiments.cli.safe_text import visible


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


def test_control_characters_of_class_names_are_escaped(trainings: Trainings, tmp_path: Path) -> None:
    """Inspecting, training and predicting show names of folders and files, which may come from an archive."""
    hostile = {"cat\x1b[2J\nsecond line": (200, 0, 0), "\u202egod\x9b": (0, 0, 200)}
    images = paint(tmp_path / "photos", 8, hostile)
    photos = ["data=image_folder", f"data.path={images}", "data.image_size=[8,8]"]
    shown = inspected(trainings, tmp_path, *photos, "output=null")
    assert r"cat\x1b[2J\nsecond line" in shown
    assert r"\u202egod\x9b" in shown
    small = ["model=mlp", "epochs=1", "progress=none", "logging.log_figures=false", "logging.log_model=false"]
    trained = trainings.run(tmp_path, *photos, *small, "data.batch_size=4")
    assert trained.returncode == 0, trained.stderr
    (images / "cat\x1b[2J\nsecond line" / "\x1b[31m.png").write_bytes(b"no image")
    refused = trainings.run(tmp_path, *photos, *small)
    assert r"\x1b[31m.png" in refused.stderr
    photo = next((images / "\u202egod\x9b").iterdir())
    predicted = trainings.run(tmp_path, f"path='{photo}'", door="predict")
    assert r"\u202egod\x9b" in predicted.stdout, predicted.stderr
    for text in (shown, trained.stdout, trained.stderr, refused.stderr, predicted.stdout, predicted.stderr):
        assert visible(text, keep="\n\t") == text
