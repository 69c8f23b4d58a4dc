"""Type and range of inputs through all commands; NumPy computes each expected value from the weights of the run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image

pytestmark = pytest.mark.slow

Array = NDArray[Any]
Door = Callable[..., str]
LABELS = np.arange(48) % 3
SHADES = np.random.default_rng(0).integers(0, 90, (48, 4, 4, 1)) + 80 * LABELS[:, None, None, None]
SHADES[:2] = np.arange(2)[:, None, None, None] * 255
"""Images of three classes: dark, grey and bright; the first two are black and white."""


def scaled(pixels: Array) -> Array:
    return pixels / 255


KINDS: dict[str, tuple[Array, Callable[[Array], Array] | None, str]] = {
    "uint8": (SHADES.astype(np.uint8), scaled, "0..255"),
    "int64": (SHADES, scaled, "0..255"),
    "uint16": (SHADES.astype(np.uint16), scaled, "0..255"),
    "unit": (SHADES / 255, scaled, "0..1"),
    "float": (SHADES.astype(np.float32), np.array, "0..255"),
    "standardised": ((SHADES - 120.0) / 70, None, "other"),
    "uint16 above 255": (SHADES.astype(np.uint16) * 200, None, "other"),
}
"""Arrays by kind, the inputs of the weights for pixels (None: images are refused), and the recorded range."""


FIXED: tuple[str, ...] = (
    "model=mlp",
    "model.hidden_sizes=[]",
    "epochs=1",
    "logging.log_model=false",
    "logging.log_figures=false",
)
FIXED += ("progress=none", "tensorboard.graph=false")
"""Overrides that train a linear model and save nothing but its checkpoints."""


def softmax(inputs: Array, weights: list[Array]) -> Array:
    """Returns the probabilities of a linear model."""
    logits = inputs.reshape(len(inputs), -1) @ weights[0] + weights[1]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return found


def loss(inputs: Array, labels: Array, weights: list[Array]) -> Any:
    """Returns what `evaluate` prints as loss: the mean cross-entropy."""
    logits = inputs.reshape(len(inputs), -1) @ weights[0] + weights[1]
    true = logits[np.arange(len(inputs)), labels]
    shifted = logits - logits.max(axis=1, keepdims=True)
    return pytest.approx(np.mean(np.log(np.exp(shifted).sum(axis=1)) + logits.max(axis=1) - true), rel=1e-4, abs=1e-5)


def write(file: Path, inputs: Array, labels: Array = LABELS, *, validation: bool = True) -> Path:
    """Writes the last 36 examples as training split and the first 12 as validation split, or all as training split."""
    arrays: dict[str, Any] = {
        "x_train": inputs[12:],
        "y_train": labels[12:],
        "x_val": inputs[:12],
        "y_val": labels[:12],
    }
    np.savez(file, **(arrays if validation else {"x_train": inputs, "y_train": labels}))
    return file


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}"


class Trained:
    """A linear model trained on arrays: id and files of its run, and the weights of its best checkpoint."""

    def __init__(self, cfg: DictConfig, output: Path) -> None:
        from mlflow import MlflowClient

        from experiments.runs.restored_run import restored_run
        from experiments.runs.run import run

        self.run_id, self.file, self.output, self.cfg = run(cfg, output).run_id, Path(cfg.data.path), output, cfg
        assert self.run_id is not None
        logging = {"tracking_uri": cfg.logging.tracking_uri, "experiment_name": ""}
        command: dict[str, Any] = {"run_id": self.run_id, "checkpoint": "best", "sweep": None, "logging": logging}
        command["allow_modules"] = []
        self.model = restored_run(OmegaConf.create(command)).model
        self.weights: list[Array] = self.model.get_weights()
        self.record = Path(MlflowClient(cfg.logging.tracking_uri).download_artifacts(self.run_id, "config/data.json"))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, composed: Callable[..., DictConfig], store: str
) -> Callable[..., Trained]:
    """Returns a function that trains on arrays of a kind, once per kind."""
    runs: dict[str, Trained] = {}

    def train(kind: str) -> Trained:
        if kind not in runs:
            folder = tmp_path_factory.mktemp("arrays")
            write(folder / "a.npz", KINDS[kind][0])
            fixed = ["data=npz", f"data.path={folder}/a.npz", "model=mlp", "model.hidden_sizes=[]", "epochs=1"]
            fixed += [
                "logging.log_model=false",
                "logging.log_figures=false",
                "progress=none",
                "tensorboard.graph=false",
            ]
            runs[kind] = Trained(composed(*fixed, f"logging.tracking_uri={store}"), folder / "output")
        return runs[kind]

    return train


@pytest.fixture
def read(door: Door, store: str) -> Callable[..., Any]:
    """Returns a function that runs a reading command and returns its rows, or its error message."""

    def call(name: str, run: Trained, *overrides: str) -> Any:
        try:
            fixed = (f"run_id={run.run_id}", f"logging.tracking_uri={store}", "format=json")
            return json.loads(door(name, *fixed, *overrides))
        except SystemExit as error:
            return str(error)

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_commands_give_inputs_as_in_training(
    kind: str, trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Covers train, evaluate, predict and the saved model."""
    from experiments.data import DataSpec
    from experiments.runs.saved_model import servable

    arrays, received, value_range = KINDS[kind]
    run, folder = trained(kind), tmp_path_factory.mktemp("images")
    record = json.loads(run.record.read_text())
    assert record["value_range"] == value_range
    inputs = arrays if received is None else received(SHADES)
    (row,) = read("evaluate", run)
    assert row["examples"] == 12
    assert row["loss"] == loss(inputs[:12], LABELS[:12], run.weights)
    served = servable(run.model, DataSpec(**{**record, "input_shape": (4, 4, 1)}))
    np.testing.assert_allclose(
        served(arrays.astype(record["input_dtype"])), softmax(inputs, run.weights), rtol=1e-4, atol=1e-6
    )
    for number in (5, 6, 7):
        Image.fromarray(SHADES[number, ..., 0].astype(np.uint8)).save(folder / f"{number}.png")
    rows = read("predict", run, f"path={folder}")
    if received is None:
        assert rows == (
            "error: predict needs images [height, width, 1 or 3] with values in 0..255 or 0..1: received inputs [4, 4, "
            "1] of float32 in the range other. Convert the inputs, best to uint8, or do without predict."
        )
    else:
        found = [list(row["probabilities"].values()) for row in rows]
        np.testing.assert_allclose(found, softmax(inputs[5:8], run.weights), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("uint8", SHADES),
        ("uint8", SHADES / 255),
        ("uint8", SHADES.astype(np.float64)),
        ("uint8", SHADES[..., 0].astype(np.uint8)),
        ("uint8", (SHADES / 255)[..., 0]),
        ("unit", SHADES),
        ("unit", SHADES.astype(np.float32)),
        ("float", SHADES.astype(np.uint8)),
        ("float", SHADES / 255),
        ("standardised", KINDS["standardised"][0]),
    ],
)
def test_other_arrays_are_converted_to_the_range_of_the_run(
    kind: str, other: Array, trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    run, (arrays, received, _) = trained(kind), KINDS[kind]
    inputs = arrays if received is None else received(SHADES)
    file = write(tmp_path.parent / f"{tmp_path.name}.npz", other)
    (row,) = read("evaluate", run, "data=npz", f"data.path={file}")
    assert (row["loss"], row["examples"]) == (loss(inputs[:12], LABELS[:12], run.weights), 12)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("standardised", SHADES.astype(np.uint8)),
        ("standardised", SHADES / 255),
        ("uint8", KINDS["standardised"][0]),
        ("unit", SHADES / 16),
        ("uint8", np.tile(SHADES, (1, 1, 1, 3))),
        ("uint8", SHADES[:, :3]),
        ("uint8", SHADES.reshape(48, -1)),
    ],
)
def test_arrays_that_cannot_be_converted_are_refused(
    kind: str, other: Array, trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    file = write(tmp_path.parent / f"{tmp_path.name}.npz", other)
    message = read("evaluate", trained(kind), "data=npz", f"data.path={file}")
    assert message.startswith("error: The data has inputs [")
    assert "but the run was trained on inputs [4, 4, 1] of" in message
    assert message.endswith("no other classes. Change the data (pixels to uint8), or set run_id to another run.")


MEASURED = np.random.default_rng(1).random((48, 5)) + LABELS[:, None] / 10
FEATURES = (MEASURED - MEASURED.min(axis=0)) / np.ptp(MEASURED, axis=0)
"""Features of three classes, scaled to 0..1."""


@pytest.mark.parametrize(
    ("scale", "other"), [(1, FEATURES * 1.04 - 0.02), (1, FEATURES * 3), (200, FEATURES * 300), (200, FEATURES * 90)]
)
def test_features_are_evaluated_as_they_are_whatever_their_largest_value(
    scale: float,
    other: Array,
    composed: Callable[..., DictConfig],
    read: Callable[..., Any],
    store: str,
    tmp_path: Path,
) -> None:
    """Features of new examples lie a little outside of the range of the training."""
    folder = tmp_path.parent / f"{tmp_path.name} arrays"
    folder.mkdir()
    own, new = write(folder / "own.npz", FEATURES * scale), write(folder / "new.npz", other)
    cfg = composed("data=npz", f'data.path="{own}"', *FIXED, f"logging.tracking_uri={store}")
    run = Trained(cfg, folder / "output")
    (row,) = read("evaluate", run, "data=npz", f'data.path="{new}"')
    assert (row["loss"], row["examples"]) == (loss(other[:12], LABELS[:12], run.weights), 12)


def test_features_are_not_scaled_as_pixels_are(
    composed: Callable[..., DictConfig], read: Callable[..., Any], store: str, tmp_path: Path
) -> None:
    folder = tmp_path.parent / f"{tmp_path.name} arrays"
    folder.mkdir()
    own, new = write(folder / "own.npz", FEATURES), write(folder / "new.npz", FEATURES * 200)
    cfg = composed("data=npz", f'data.path="{own}"', *FIXED, f"logging.tracking_uri={store}")
    message = read("evaluate", Trained(cfg, folder / "output"), "data=npz", f'data.path="{new}"')
    assert "has inputs [5] of float32 in the range 0..255" in message
    assert "but the run was trained on inputs [5] of float32 in the range 0..1" in message


@pytest.mark.parametrize("labels", [(0, 1), (1, 2), (2,), (0,)])
def test_data_without_splits_is_evaluated_as_one(
    labels: tuple[int, ...], trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    """Some of the three classes are enough."""
    chosen, run = np.isin(LABELS, labels), trained("uint8")
    file, pixels = tmp_path.parent / f"{tmp_path.name}.npz", SHADES.astype(np.uint8)
    write(file, pixels[chosen], LABELS[chosen], validation=False)
    (row,) = read("evaluate", run, "data=npz", f"data.path={file}")
    assert (row["loss"], row["examples"]) == (loss(SHADES[chosen] / 255, LABELS[chosen], run.weights), chosen.sum())


def test_classes_are_identified_by_name(
    trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    """The run has the classes 0, 1, 2; folders named 2 and 1 contain images of another size, and one is too many."""
    run, folder = trained("unit"), tmp_path.parent / f"{tmp_path.name} folder"
    for number in np.flatnonzero(LABELS):
        (folder / str(LABELS[number])).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(SHADES[number, ..., 0].astype(np.uint8))
        picture.resize((8, 8), Image.Resampling.NEAREST).save(folder / str(LABELS[number]) / f"{number}.png")
    overrides = ("data=image_folder", f'data.path="{folder}"', "data.cache=none")
    (row,) = read("evaluate", run, *overrides)
    assert (row["loss"], row["examples"]) == (loss(SHADES[LABELS > 0] / 255, LABELS[LABELS > 0], run.weights), 32)
    (folder / "1").rename(folder / "cat")
    message = read("evaluate", run, *overrides)
    assert "the classes 2, cat, but the run was trained on inputs [4, 4, 1] of float32 in the range 0..1" in message


def test_own_data_at_another_place_keeps_its_splits(
    trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    run = trained("int64")
    moved = shutil.copy(run.file, tmp_path.parent / f"{tmp_path.name}.npz")
    assert read("evaluate", run, "data=npz", f"data.path={moved}") == read("evaluate", run)


def test_changed_data_is_refused_unless_allowed(
    trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    run, changed = trained("uint16"), SHADES.copy()
    changed[3] = 200  # an example of the validation split
    kept = run.file.read_bytes()
    write(run.file, changed)
    message = read("evaluate", run)
    (row,) = read("evaluate", run, "allow_other_data=true")
    run.file.write_bytes(kept)
    assert message == (
        f"error: The data of run {run.run_id} has changed: expected '{run.file}' and its splits as in the training. "
        "Restore it, set allow_other_data=true, or select other data by data=..."
    )
    assert row["loss"] == loss(changed[:12] / 255, LABELS[:12], run.weights)
    assert len(read("evaluate", run)) == 1


def make_earlier(*records: Path) -> None:
    """Removes the keys that `data.json` of version 0.3 does not have."""
    for file in records:
        record = json.loads(file.read_text())
        del record["split_rules"], record["value_range"]
        file.write_text(json.dumps(record, ensure_ascii=False, indent=1))


def test_record_of_an_earlier_version_is_read_by_its_rules(
    trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That version trained on integers as float32 without scaling."""
    from experiments.data.base import using_split_rules
    from experiments.runs.run import run as resume

    monkeypatch.setitem(KINDS, "earlier", KINDS["int64"])
    with using_split_rules(1):
        run = trained("earlier")
    make_earlier(run.record, run.output / "config" / "data.json")
    (row,) = read("evaluate", run)
    assert row["loss"] == loss(SHADES[:12], LABELS[:12], run.weights)
    file = write(tmp_path.parent / f"{tmp_path.name}.npz", SHADES, validation=False)
    (row,) = read("evaluate", run, "data=npz", f"data.path={file}")
    assert (row["loss"], row["examples"]) == (loss(SHADES, LABELS, run.weights), 48)
    Image.new("L", (4, 4)).save(tmp_path.parent / f"{tmp_path.name}.png")
    assert "of float32 in the range unknown" in read("predict", run, f"path={tmp_path}.png")
    run.cfg.merge_with({"resume": run.run_id, "epochs": 2})
    assert len(resume(run.cfg, tmp_path / "output").at_best) > 0  # otherwise the digest of the data differs


def test_images_are_prepared_as_in_an_earlier_run(
    composed: Callable[..., DictConfig], store: str, read: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """That version held images out by a hash of their names without folders, which are equal in all folders here."""
    import tensorflow as tf
    from mlflow import MlflowClient

    from experiments.data.base import using_split_rules

    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(1).integers(0, 256, (2, 6, 7, 12, 12, 3)).astype(np.uint8)
    for *place, name in np.ndindex(2, 6, 7):
        file = folder / "photos" / "ab"[place[0]] / str(place[1]) / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[(*place, name)]).save(file)
    options = ("data.image_size=[4,4]", "data.antialias=true", "data.channels=1", "data.cache=none")
    data = ("data=image_folder", f"data.path={folder}/photos", *options)
    with using_split_rules(1):
        run = Trained(composed(*data, *FIXED, f"logging.tracking_uri={store}"), folder / "output")
    make_earlier(run.record)
    (row,) = read("evaluate", run)
    assert row["loss"] == pytest.approx(MlflowClient(store).get_run(run.run_id).data.metrics["val_loss"], rel=1e-5)
    assert row["examples"] % 12 == 0  # the same names in 12 folders

    shutil.move(folder / "photos" / "a" / "0", folder / "other" / "a")
    small = tf.round(tf.image.resize(noise[0, 0], (4, 4), antialias=True) @ [[0.299], [0.587], [0.114]])
    (row,) = read("evaluate", run, "data=image_folder", f"data.path={folder}/other", "data.cache=none")
    assert row["examples"] == 7
    assert row["loss"] == loss(small.numpy() / 255, np.zeros(7, int), run.weights)


def test_same_source_with_other_options_keeps_its_splits(
    trained: Callable[[str], Trained], read: Callable[..., Any], tmp_path: Path
) -> None:
    """Taken as one split, it would contain the examples of the training."""
    run = trained("uint8")
    (own,) = read("evaluate", run)
    (row,) = read("evaluate", run, "data=npz", f"data.path={run.file}", "data.limit=6")
    assert row["examples"] <= min(6, own["examples"])


def test_own_folder_keeps_the_splits_of_the_run(
    composed: Callable[..., DictConfig], store: str, read: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folder has no validation folder, and the run has another fraction than the default."""
    folder = tmp_path_factory.mktemp("own")
    for number in range(48):
        file = folder / "photos" / "abc"[LABELS[number]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SHADES[number, ..., 0].astype(np.uint8)).save(file)
    options = ("data.image_size=[4,4]", "data.channels=1", "data.validation_fraction=0.4", "data.limit=30")
    data = ("data=image_folder", f"data.path={folder}/photos", *options, "data.cache=none")
    run = Trained(composed(*data, *FIXED, f"logging.tracking_uri={store}"), folder / "output")
    (own,) = read("evaluate", run)
    assert own["examples"] > 10  # today's fraction would give about 5
    moved = shutil.copytree(folder / "photos", folder / "moved")
    (folder / "linked").symlink_to(folder / "photos")

    def images(path: str, *options: str) -> Any:
        return read("evaluate", run, "data=image_folder", f"data.path={folder}/{path}", "data.cache=none", *options)

    assert images("photos") == images("moved") == images("linked", "data.validation_fraction=0.9") == [own]
    assert [images(path, "data.limit=5")[0]["examples"] for path in ("photos", "moved")] == [5, 5]
    (folder / "photos" / "a" / "0.png").unlink()
    (row,) = images("linked")
    assert own["examples"] - 1 <= row["examples"] <= own["examples"]
    # Other data is one split, with the options of this command.
    (moved / "a" / "0.png").unlink()
    (row,) = images("moved")
    assert row["examples"] == 47
    rest = np.arange(1, 48)
    assert row["loss"] == loss(SHADES[rest] / 255, LABELS[rest], run.weights)
    (row,) = images("moved", "data.limit=9")
    assert row["examples"] == 9


def test_new_run_uses_the_newest_rules_although_an_earlier_one_was_found(
    composed: Callable[..., DictConfig], store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    from experiments.data.base import SPLIT_RULES, using_split_rules
    from experiments.runs.run import run

    file, client = write(tmp_path / "a.npz", SHADES), MlflowClient(store)
    cfg = composed("data=npz", f"data.path={file}", *FIXED, "seed=7", f"logging.tracking_uri={store}")
    with using_split_rules(1):
        earlier = run(cfg.copy(), tmp_path / "earlier").run_id
    assert earlier is not None
    client.set_terminated(earlier, "FAILED")
    make_earlier(tmp_path / "earlier" / "config" / "data.json")
    write(file, SHADES[::-1], LABELS[::-1])
    cfg.resume = "last"
    later = run(cfg, tmp_path / "later")
    assert f"Run {earlier} started with other data; starting a new run." in caplog.messages
    assert later.run_id != earlier
    record = json.loads((tmp_path / "later" / "config" / "data.json").read_text())
    assert (record["split_rules"], record["input_dtype"]) == (SPLIT_RULES, "uint8")
