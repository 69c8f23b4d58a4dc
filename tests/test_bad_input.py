"""User errors are reported in one helpful line, with exit status 1 and without starting a run."""

import io
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from experiments.cli.entry import run_command
from experiments.train import main

Refused = Callable[..., str]


def command(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *overrides],
        cwd=folder,
        env={**os.environ, "HYDRA_FULL_ERROR": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "optimizer.learing_rate=1",
            "'optimizer.learing_rate' is not a key of this config. Did you mean 'optimizer.learning_rate'?",
        ),
        ("epoch=3", "'epoch' is not a key of this config. Did you mean 'epochs'?"),
        ("learning_rate=1", "'learning_rate' is not a key of this config. Did you mean 'optimizer.learning_rate'?"),
        ("modle=cnn", "'modle' is not a key of this config. Did you mean 'model'?"),
        ("monitor.zzz=1", "'monitor.zzz' is not a key of this config. Did you mean 'monitor'?"),
        (
            "callbacks=[early_stopping] callbacks.early_stopping.pacience=2",
            "'callbacks.early_stopping.pacience' is not a key of this config. "
            "Did you mean 'callbacks.early_stopping.patience'?",
        ),
        (
            "+optimizer.learing_rate=1",
            "'optimizer.learing_rate' is not a key of this config. Did you mean 'learning_rate'?",
        ),
        ("+epoch=3", "'epoch' is not a key of this config. Did you mean 'epochs'?"),
        ("logging.tags={a:b}", "logging.tags takes its entries one by one. Write +logging.tags.NAME=VALUE for each."),
        ("logging.tags.a=b", "logging.tags.a would be a new entry of logging.tags. Write +logging.tags.a=VALUE."),
        ("~epoch", "'epoch' is not a key of this config. Did you mean 'epochs'?"),
        ("epochs=many", "epochs=many: expected a whole number, received 'many'. Change epochs."),
        ("epochs=", "epochs=: expected a whole number, received ''. Change epochs."),
        (
            "data.batch_size=1.5",
            "data.batch_size=1.5: expected a whole number, received '1.5'. Change data.batch_size.",
        ),
        ("model.dropout=x", "model.dropout=x: expected a number, received 'x'. Change model.dropout."),
        ("seed=null", "seed=null: expected a value other than null, received 'null'. Change seed."),
        ("data.shuffle=maybe", "data.shuffle=maybe: expected true or false, received 'maybe'. Change data.shuffle."),
        ("model.filters=8", "model.filters=8: expected a list such as [1,2], received '8'. Change model.filters."),
        (
            "epochs=[1",
            "'epochs=[1' cannot be read: expected KEY=VALUE, with closed lists, mappings and quotes. If it is text, "
            "write 'epochs=\"[1\"'.",
        ),
        (
            "data.batch_size=0",
            "data.batch_size=0 is out of range: expected 1 or more. Change data.batch_size.",
        ),
        (
            "loop.train_step=a.b",
            "'loop.train_step' is a key of loop=tape, which is not chosen here. Choose it, or leave the key out.",
        ),
        (
            "model=cnn model.alpha=0.5",
            "'model.alpha' is a key of model=application, model=mobilenetv2, which is not chosen here. "
            "Choose it, or leave the key out.",
        ),
        ("model=mobilnetv2", "model=mobilnetv2 is not an option. Did you mean 'mobilenetv2'?"),
        ("metrics=[acuracy]", "metrics=acuracy is not an option. Did you mean 'accuracy'?"),
        ("debug=all", "debug=all is not an option. Known: one_batch, overfit, profile."),
        (
            "model=application",
            "model.architecture has no value: this option needs one. Add model.architecture=VALUE.",
        ),
        (
            "hydra.run.dir=/proc/xx",
            "/proc/xx: No such file or directory. Expected a file or folder this user can write. Set "
            "hydra.run.dir=FOLDER for the output, or HYDRA_FULL_ERROR=1 to see where this came from.",
        ),
        (
            "hydra.run.dir=taken/run",
            "taken/run: Not a directory. Expected a file or folder this user can write. Set hydra.run.dir=FOLDER for "
            "the output, or HYDRA_FULL_ERROR=1 to see where this came from.",
        ),
    ],
)
def test_invalid_override_is_refused_with_one_line(refused: Refused, tmp_path: Path, overrides: str, line: str) -> None:
    (tmp_path / "taken").touch()
    assert refused(*overrides.split()) == f"error: {line}"
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("epoch=3", "'epoch' is not a key of this config. Did you mean 'epochs'?"),
        ("epochs=0", "epochs=0 is out of range: expected 1 or more. Change epochs."),
    ],
)
def test_process_prints_only_the_error_line(tmp_path: Path, override: str, line: str) -> None:
    done = command(tmp_path, override)
    assert (done.stderr, done.stdout, done.returncode) == (f"error: {line}\n", "", 1)
    assert not (tmp_path / "mlflow.db").exists()
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize("override", ["optimizer.learing_rate=1", "epochs=0"])
def test_full_traceback_is_shown_on_request(tmp_path: Path, override: str) -> None:
    done = command(tmp_path, override, HYDRA_FULL_ERROR="1")
    assert "Traceback (most recent call last)" in done.stderr
    assert done.returncode == 1


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Runs the command in this process and returns its error line; checks that it prints and leaves nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    # MLflow sets this variable, and monkeypatch restores it for later tests.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    terminate = signal.getsignal(signal.SIGTERM)

    def run(*overrides: str) -> str:
        quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
        monkeypatch.setattr(sys, "argv", ["train", "progress=none", "logging.log_model=false", *quiet, *overrides])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            run_command(main, "config")
        output = capfd.readouterr()
        printed = [line for line in output.err.splitlines() if not line.startswith("Downloading data from")]  # by Keras
        assert (output.out, printed) == ("", [])
        assert not (tmp_path / "mlflow.db").exists()
        return str(ended.value.code)

    yield run
    signal.signal(signal.SIGTERM, terminate)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of small JPEG files in train/ and valid/."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("train/cats", "train/dogs", "valid/cats", "valid/dogs")):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            (folder / name / f"{index}.jpg").write_bytes(jpeg(10 * number + index))
    return folder


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


PHOTOS = ("data=image_folder", "data.path=photos", "data.image_size=[32,32]", "data.batch_size=4")
FROM_SCRATCH = ("model=mobilenetv2", "model.alpha=0.35", "model.weights=null")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "monitor.metric=val_acuracy",
            "monitor.metric=val_acuracy is not a metric of this run. Did you mean 'val_accuracy'?",
        ),
        (
            "data=image_folder data.path=nowhere",
            "data.path='nowhere' is not a folder: expected train/ and valid/ (and test/, if you like) with one folder "
            "per class in each, or one folder per class. Set data.path=FOLDER.",
        ),
        (
            "data=npz data.path=nowhere.npz",
            "data.path='nowhere.npz' does not exist: expected a NumPy .npz file with x_train and y_train. "
            "Set data.path=FILE.",
        ),
        (
            "model._target_=nowhere.model",
            "model._target_=nowhere.model cannot be used: No module named 'nowhere'. Expected the dotted name of a "
            "function or class. Run from the folder that contains its module, or install it.",
        ),
        (
            "loop=tape loop.train_step=nowhere.step",
            "loop.train_step=nowhere.step cannot be imported (No module named 'nowhere'): expected the dotted name of "
            "a function (model, batch) -> metrics. Run from the folder that contains the module, or install it.",
        ),
        (
            "+callbacks.mine._target_=nowhere.Callback",
            "callbacks.mine._target_=nowhere.Callback cannot be used: No module named 'nowhere'.",
        ),
        ("logging.tracking_uri=http://127.0.0.1:9", "tracking server http://127.0.0.1:9 is not reachable: "),
        ("runtime.device=gpu", "runtime.device=gpu, but TensorFlow finds no GPU on this machine."),
    ],
)
def test_value_that_cannot_be_built_is_refused_with_one_line(refused: Refused, overrides: str, line: str) -> None:
    assert refused(*overrides.split()).startswith(f"error: {line}")


def test_empty_class_folder_is_refused(refused: Refused, photos: Path) -> None:
    for file in (photos / "train/dogs").iterdir():
        file.unlink()
    assert refused(*PHOTOS) == (
        "error: The class folder 'photos/train/dogs' holds no image: expected files ending in .jpg, .jpeg, .png, .bmp, "
        ".gif, .webp. Add images or remove the folder."
    )


def test_different_class_folders_in_splits_are_refused(refused: Refused, photos: Path) -> None:
    (photos / "valid/dogs").rename(photos / "valid/wolves")
    assert refused(*PHOTOS) == (
        "error: The class folders of 'photos' differ between splits: train/ has cats, dogs; valid/ has cats, wolves. "
        "Give both the same folders."
    )


@pytest.mark.parametrize("content", [jpeg(0)[:-200], b"not an image"], ids=["truncated", "unreadable"])
def test_corrupt_image_is_named(refused: Refused, photos: Path, content: bytes) -> None:
    (photos / "train/cats/1.jpg").write_bytes(content)
    line = refused(*PHOTOS)
    assert line.startswith("error: 1 image of 12 below 'photos' cannot be read: train/cats/1.jpg (")
    assert line.endswith("Remove or replace them, or set data.on_corrupt=skip to leave them out.")


def test_too_small_image_size_is_refused(refused: Refused, photos: Path) -> None:
    assert refused(*PHOTOS, *FROM_SCRATCH, "data.image_size=[16,16]") == (
        "error: data.image_size=[16,16] is too small for model.architecture=MobileNetV2: expected [32,32] or larger. "
        "Set data.image_size=[32,32] for photos, or choose another model."
    )


def test_weights_file_of_another_model_is_refused(refused: Refused, photos: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights("other.weights.h5")
    line = refused(*PHOTOS, *FROM_SCRATCH, "model.weights=other.weights.h5")
    assert line.startswith("error: model.weights='other.weights.h5' does not fit MobileNetV2: ")
    assert line.endswith("or model.weights=null.")


def test_missing_network_for_imagenet_weights_is_reported(
    refused: Refused, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # Keras reads the variable at import
    closed = urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(closed))
    line = refused(*PHOTOS, "data.image_size=[96,96]", "model=mobilenetv2", "model.alpha=0.35")
    assert line.startswith("error: model.weights=imagenet: the weights of MobileNetV2 could not be downloaded (")
    assert line.endswith("or set model.weights=null to train from scratch.")
