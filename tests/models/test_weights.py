import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from experiments.checkpoints.training_state import weights
from experiments.errors import ModelError, TrackingError
from experiments.models.cnn import cnn
from experiments.models.run_weights import run_of

Build = Callable[..., keras.Model]


def network_of(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def assert_equal_weights(loaded: keras.Model, source: keras.Model) -> None:
    for mine, theirs in zip(loaded.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}")


@pytest.fixture(autouse=True)
def current_store(store: mlflow.MlflowClient) -> None:
    """Makes the store that of MLflow, as a run does; `store_of_its_own` resets it."""
    mlflow.set_tracking_uri(store.tracking_uri)


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


@pytest.fixture(scope="module")
def runs(mobilenet: keras.Model, tmp_path_factory: pytest.TempPathFactory, store: mlflow.MlflowClient) -> list[str]:
    """Runs whose best checkpoint contains the weights of `mobilenet`, of an earlier version and of this one."""
    folder = tmp_path_factory.mktemp("run")
    mobilenet.compile("adam", "mse")
    mobilenet.optimizer.build(mobilenet.trainable_variables)  # earlier checkpoints name them as parts of the optimizer
    experiment, found = store.create_experiment("weights", artifact_location=str(folder / "artifacts")), []
    for number, best in enumerate((tf.train.Checkpoint(model=mobilenet), weights(mobilenet))):
        target = str(folder / f"{number}" / "checkpoints" / "best")
        tf.train.CheckpointManager(best, target, 1, checkpoint_name="best").save(checkpoint_number=3)
        found.append(store.create_run(experiment).info.run_id)
        store.log_artifacts(found[-1], str(folder / f"{number}"))
    return found


@pytest.fixture(scope="module")
def run_id(runs: list[str], tmp_path_factory: pytest.TempPathFactory, store: mlflow.MlflowClient) -> str:
    """A run and its registered model m@best."""
    folder, found = tmp_path_factory.mktemp("model"), runs[0]
    store.create_registered_model("m")
    store.create_model_version("m", str(folder), run_id=found)
    store.set_registered_model_alias("m", "best", "1")
    store.create_model_version("m", str(folder))
    return found


@pytest.mark.parametrize("source", ["runs:/{}", "runs:/{}/model", "models:/m@best", "models:/m/1"])
def test_best_weights_of_run_are_loaded(build: Build, mobilenet: keras.Model, run_id: str, source: str) -> None:
    assert run_of(source.format(run_id)) == run_id
    assert_equal_weights(build(weights=source.format(run_id)), mobilenet)


def test_best_weights_without_optimizer_are_loaded(build: Build, mobilenet: keras.Model, runs: list[str]) -> None:
    assert_equal_weights(build(weights=f"runs:/{runs[1]}"), mobilenet)


def test_layers_that_match_are_loaded(
    build: Build, mobilenet: keras.Model, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = build(weights=f"runs:/{run_id}", num_classes=3)
    assert_equal_weights(network_of(model), network_of(mobilenet))
    count = len(model.weights)
    assert caplog.messages[-1] == (
        f"Loaded {count - 2} of {count} arrays from run {run_id}; initial values remain in logits/kernel, logits/bias."
    )


def test_run_of_other_model_is_refused(run_id: str) -> None:
    with pytest.raises(TrackingError, match=rf"weights='runs:/{run_id}' cannot be used: \d+ of 12 arrays of convolu"):
        cnn([4, 4], 0.0, 0.9, 0.0, (32, 32, 3), 2, weights=f"runs:/{run_id}")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("runs:/0123/model", ""),
        ("runs:/", "it has another form"),
        ("models:/nothing@best", "Registered Model with name=nothing not found"),
        ("models:/m@other", "Registered model alias other not found"),
        ("models:/m", "it has another form"),
        ("models:/m/latest", "it has another form"),
        ("models:/m/2", "this version was registered without a run"),
        ("models:/m-0123456789abcdef0123456789abcdef", "it has another form"),
    ],
)
@pytest.mark.usefixtures("run_id")
def test_unknown_run_is_refused(build: Build, source: str, reason: str) -> None:
    with pytest.raises(TrackingError) as error:
        build(weights=source)
    message = str(error.value)
    assert message.startswith(f"model.weights='{source}' cannot be used: {reason}")
    assert message.endswith(
        " Expected runs:/ID or models:/NAME@ALIAS of a run of the tracking store, trained by experiments train with a "
        "similar model. Set model.weights or logging.tracking_uri; HYDRA_FULL_ERROR=1 shows where this came from."
    )


def test_name_of_no_run_is_refused(build: Build, run_id: str) -> None:
    with pytest.raises(TrackingError, match=r"model.weights=0123 is not in sqlite:///.*Set model.weights to the id"):
        build(weights="runs:/0123")
    assert run_of(f"runs:/{run_id[:10]}") == run_id


@pytest.mark.parametrize("content", [None, b"", b"not an index"], ids=["missing", "empty", "other"])
def test_run_without_valid_checkpoint_is_refused(
    build: Build, store: mlflow.MlflowClient, tmp_path: Path, content: bytes | None
) -> None:
    experiment = store.create_experiment(f"damaged {content!r}", artifact_location=str(tmp_path / "artifacts"))
    run = store.create_run(experiment).info.run_id
    if content is not None:
        (tmp_path / "best-1.index").write_bytes(content)
        store.log_artifact(run, str(tmp_path / "best-1.index"), "checkpoints/best")
    with pytest.raises(TrackingError, match=rf"model.weights='runs:/{run}' cannot be used: "):
        build(weights=f"runs:/{run}")


def test_missing_file_is_refused(build: Build) -> None:
    with pytest.raises(ModelError) as error:
        build(weights="nowhere.weights.h5")
    assert str(error.value) == (
        "model.weights='nowhere.weights.h5' is not a file: expected null, imagenet, runs:/ID, models:/NAME@ALIAS "
        "or a file ending in .h5, .hdf5, .keras. Set model.weights=FILE."
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
