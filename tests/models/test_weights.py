import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from experiments.errors import ModelError, TrackingError

Build = Callable[..., keras.Model]


def network_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def served(model: keras.Model) -> keras.Model:
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    return keras.Model(pixels, keras.layers.Softmax()(model(pixels)), name="served")


def assert_equal_weights(loaded: keras.Model, source: keras.Model) -> None:
    for mine, theirs in zip(loaded.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[mlflow.MlflowClient]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("name", ["network.weights.h5", "network.h5"])
def test_weights_of_network_are_loaded_into_network(
    build: Build, mobilenet: keras.Model, tmp_path: Path, name: str
) -> None:
    source = network_of(mobilenet)
    (source.save_weights if name.endswith(".weights.h5") else source.save)(tmp_path / name)
    assert_equal_weights(network_of(build(weights=str(tmp_path / name))), source)


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_weights_of_full_model_are_loaded_into_head_too(
    build: Build, mobilenet: keras.Model, tmp_path: Path, name: str
) -> None:
    (mobilenet.save_weights if name.endswith(".weights.h5") else mobilenet.save)(tmp_path / name)
    assert_equal_weights(build(weights=str(tmp_path / name)), mobilenet)


def test_saved_model_with_other_classes_is_loaded_into_network_only(
    build: Build, mobilenet: keras.Model, tmp_path: Path
) -> None:
    mobilenet.save(tmp_path / "two_classes.keras")
    model = build(weights=str(tmp_path / "two_classes.keras"), num_classes=3)
    assert_equal_weights(network_of(model), network_of(mobilenet))


def test_weights_of_saved_model_of_run_are_loaded(
    build: Build, mobilenet: keras.Model, images: np.ndarray, tmp_path: Path, store: mlflow.MlflowClient
) -> None:
    signature = mlflow.models.infer_signature(images, np.zeros((4, 2), "float32"))
    mlflow.keras.save_model(served(mobilenet), str(tmp_path / "model"), signature=signature, pip_requirements=["keras"])
    run_id = store.create_run(store.create_experiment("weights", artifact_location=str(tmp_path / "a"))).info.run_id
    store.log_artifacts(run_id, str(tmp_path / "model"), "model")
    assert_equal_weights(build(weights=f"runs:/{run_id}"), mobilenet)


def test_unknown_run_is_refused(build: Build, store: mlflow.MlflowClient) -> None:
    with pytest.raises(TrackingError) as error:
        build(weights="runs:/0123")
    message = str(error.value)
    assert message.startswith("model.weights='runs:/0123' cannot be used: MlflowException: ")
    assert "0123" in message.removeprefix("model.weights='runs:/0123'")
    assert message.endswith(
        "Expected a run of the tracking store with a Keras model in its folder model/. Set it, or "
        "logging.tracking_uri; HYDRA_FULL_ERROR=1 shows where this came from."
    )


def test_missing_file_is_refused(build: Build) -> None:
    with pytest.raises(ModelError) as error:
        build(weights="nowhere.weights.h5")
    assert str(error.value) == (
        "model.weights='nowhere.weights.h5' is not a file: expected null, imagenet, runs:/ID or a file ending in "
        ".h5, .hdf5, .keras. Set model.weights=FILE."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes.txt", "a file name that ends in .h5, .hdf5, .keras"),
        ("notes.h5", "arrays in HDF5 format"),
        ("notes.weights.h5", "arrays in HDF5 format"),
        ("notes.keras", "a model saved by Keras"),
    ],
)
def test_file_without_weights_is_refused(build: Build, tmp_path: Path, name: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text("hello")
    with pytest.raises(ModelError) as error:
        build(weights=str(path))
    assert str(error.value) == (
        f"model.weights='{path}' is not a weights file: expected {expected}. "
        "Set model.weights to a file that Keras saved, or model.weights=null."
    )


@pytest.fixture(scope="module")
def wide(build: Build) -> keras.Model:
    return network_of(build(alpha=1.4))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wide.weights.h5", "layer Conv1 expected an array of shape (3, 3, 3, 16), received (3, 3, 3, 48)"),
        ("wide.keras", "expected a model with the 260 arrays of MobileNetV2, received 'mobilenetv2_1.40_32'"),
        ("other.h5", "Layer count mismatch when loading weights from file. Model expected 104 layers, found 1 saved"),
        ("other.weights.h5", "Layer 'Conv1' expected 1 variables, but received 0 variables during loading"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    build: Build, wide: keras.Model, tmp_path: Path, name: str, reason: str
) -> None:
    source = wide if name.startswith("wide") else keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    (source.save_weights if name.endswith(".weights.h5") else source.save)(tmp_path / name)
    with pytest.raises(ModelError) as error:
        build(weights=str(tmp_path / name))
    message = str(error.value)
    assert message.startswith(f"model.weights='{tmp_path / name}' does not fit MobileNetV2: {reason}")
    assert message.endswith("Set model.architecture and model.alpha to those it was made with, or model.weights=null.")
    assert "\n" not in message


@pytest.mark.real_data
def test_real_imagenet_weights_fit_only_their_width(build: Build, real_data: Path) -> None:
    (path,) = (real_data / "weights").glob("mobilenet_v2*0.35*no_top.weights.h5")
    expected = keras.applications.MobileNetV2(alpha=0.35, include_top=False, weights=None, input_shape=(160, 160, 3))
    expected.load_weights(path)
    model = build(weights=str(path), freeze=True, input_shape=(160, 160, 3))
    assert_equal_weights(network_of(model), expected)
    with pytest.raises(ModelError, match=r"layer Conv1 expected an array of shape \(3, 3, 3, 32\), received"):
        build(weights=str(path), alpha=1.0)
