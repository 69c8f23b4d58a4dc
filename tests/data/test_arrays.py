"""Data sets from arrays in memory and in .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.data import Splits, digits, from_arrays, mnist, npz
from experiments.errors import DataError

X = np.arange(60, dtype=np.uint8).reshape(10, 3, 2)
Y = np.arange(10) % 2


def read(split: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    parts = [(x.numpy(), y.numpy()) for x, y in split.epoch(0)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def my_data(path: str, batch_size: int, shuffle: bool, seed: int) -> Splits:
    """User-defined data function."""
    x, y = X[: int(path)], Y[: int(path)]
    return from_arrays((x, y), validation=(X[8:], Y[8:]), batch_size=batch_size, shuffle=shuffle, seed=seed)


def test_user_defined_data_function_returns_splits() -> None:
    splits = my_data("8", batch_size=3, shuffle=False, seed=0)
    x, y = read(splits.train)
    np.testing.assert_array_equal(x, X[:8, ..., None])
    np.testing.assert_array_equal(y, Y[:8])
    assert (splits.train.spec.class_names, splits.train.spec.source) == (("0", "1"), "arrays")
    assert splits.train.spec.input_shape == (3, 2, 1)
    assert splits.test is None


def test_float64_inputs_become_float32(array_options: dict[str, Any]) -> None:
    split = from_arrays((X.astype(np.float64) / 7, Y[:, None]), **{**array_options, "shuffle": False}).train
    assert (split.spec.input_dtype, split.spec.input_shape) == ("float32", (3, 2))
    assert read(split)[0].dtype == np.float32


def test_held_out_examples_do_not_depend_on_the_seed(array_options: dict[str, Any]) -> None:
    first, second = (from_arrays((X, Y), **{**array_options, "seed": seed}) for seed in (0, 1))
    assert first.train.spec.num_examples + first.validation.spec.num_examples == 10
    assert first.validation.spec == second.validation.spec
    assert not np.array_equal(read(first.train)[0], read(second.train)[0])


def test_digest_differs_for_other_inputs_or_labels(array_options: dict[str, Any]) -> None:
    changed = X.copy()
    changed[0] += 1
    made = [
        from_arrays((x, y), (X, Y), **array_options).train.spec.digest for x, y in ((X, Y), (changed, Y), (X, 1 - Y))
    ]
    assert len(set(made)) == 3


def test_limit_applies_to_each_split(array_options: dict[str, Any]) -> None:
    splits = from_arrays((X, Y), (X, Y), **{**array_options, "limit": 4})
    assert splits.train.spec.class_counts == splits.validation.spec.class_counts == (2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (X, Y[:9])}, "The labels of 'train' must be whole numbers from 0, one for each of 10 inputs: "
         "received the shape [9]. Turn one-hot labels into argmax(axis=1)."),
        ({"train": (X, np.eye(2)[Y])}, "received the shape [10, 2]. Turn one-hot labels"),
        ({"train": (X, Y / 2)}, "received float64. Convert them with astype('int64')."),
        ({"train": (X, Y - 1)}, "received -1. Number the classes from 0."),
        ({"train": (X, Y * 0)}, "There is one class only: expected labels of 2 or more classes. Check the labels."),
        ({"train": (X[:0], Y[:0])}, "The inputs of 'train' must be [n, ...] with n of 1 or more: received [0, 3, 2]."),
        ({"train": (X.astype(str), Y)}, "The inputs of 'train' must be numbers: received <U3. Convert them first."),
        ({"class_names": ["one"]}, "Label 1 has no name: received 1 class names. Name every class."),
        ({"validation": (X[:, :2], Y)}, "'train' has [3, 2, 1] of uint8, 'validation' has [2, 2, 1] of uint8."),
        ({"test": (X / 255, Y)}, "'test' has [3, 2] of float32. Bring them to one shape and type."),
        ({"validation_fraction": 0.0}, "There is no validation split, and data.validation_fraction=0.0 of 10 training "
         "examples leaves none for it. Set data.validation_fraction=0.1 or give a validation split."),
    ],
)  # fmt: skip
def test_invalid_arrays_are_refused_with_reason(
    array_options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        from_arrays(**{"train": (X, Y), **array_options, **changes})
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_npz_accepts_usual_names_of_validation_arrays(tmp_path: Path, array_options: dict[str, Any], name: str) -> None:
    file = tmp_path / "meine Zahlen ö.npz"
    arrays: dict[str, Any] = {"x_train": X, "y_train": Y, f"x_{name}": X[:4], f"y_{name}": Y[:4]}
    np.savez(file, **arrays, x_test=X[:2], y_test=Y[:2])
    splits = npz(str(file), **array_options)
    assert splits.test is not None
    assert [part.spec.num_examples for part in (splits.train, splits.validation, splits.test)] == [10, 4, 2]
    assert splits.train.spec.source == str(file)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, "has no x_train: expected a NumPy .npz file with x_train and y_train. Save it with np.savez"),
        ({"x_train": X}, "has x_train only: expected x_train and y_train. Save both."),
        ({"x_train": X, "y_train": np.array([None] * 10)}, "received an array of Python objects; save plain numbers"),
    ],
)
def test_npz_with_invalid_arrays_is_refused_with_reason(
    tmp_path: Path, array_options: dict[str, Any], arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as raised:
        npz(str(tmp_path / "a.npz"), **array_options)
    assert message in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken", bytes(9) + b"PK\x05\x06" + bytes(18)])
def test_unreadable_npz_is_named(tmp_path: Path, array_options: dict[str, Any], content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz' cannot be read: expected a NumPy \.npz file"):
        npz(str(tmp_path / "a.npz"), **array_options)


def test_missing_npz_is_named(tmp_path: Path, array_options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"no\.npz' does not exist: expected a NumPy .* Set data\.path=FILE\.$"):
        npz(str(tmp_path / "no.npz"), **array_options)


def test_npy_file_is_refused(tmp_path: Path, array_options: dict[str, Any]) -> None:
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(DataError, match=r"cannot be read: expected a NumPy \.npz file with x_train and y_train"):
        npz(str(tmp_path / "a.npy"), **array_options)


def test_digits_have_three_splits(array_options: dict[str, Any]) -> None:
    splits = digits(test_fraction=0.1, **array_options)
    assert splits.test is not None
    parts = [part.spec for part in (splits.train, splits.validation, splits.test)]
    assert sum(part.num_examples for part in parts) == 1797
    assert all(140 < part.num_examples < 220 and min(part.class_counts) > 8 for part in parts[1:])
    assert (parts[0].input_shape, parts[0].input_dtype, parts[0].num_classes) == ((8, 8, 1), "uint8", 10)
    assert read(splits.train)[0].max() == 255
    assert digits(test_fraction=0.0, **array_options).test is None


@pytest.mark.real_data
def test_mnist_is_read_from_existing_file(real_data: Path, array_options: dict[str, Any]) -> None:
    splits = mnist(str(real_data / "mnist/mnist.npz"), url="", sha256="", **array_options)
    assert splits.test is not None
    assert splits.train.spec.num_examples + splits.validation.spec.num_examples == 60000
    assert (splits.test.spec.num_examples, splits.test.spec.input_shape) == (10000, (28, 28, 1))
