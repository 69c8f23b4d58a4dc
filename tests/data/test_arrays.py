"""Data sets from arrays in memory and in .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.data import Splits, digits, from_arrays, mnist, npz
from experiments.data.base import using_split_rules
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
    assert (split.spec.input_dtype, split.spec.input_shape, split.spec.value_range) == ("float32", (3, 2), "other")
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
         "received int64 [9]. Turn one-hot labels into argmax(axis=1), and number other classes by "
         "np.unique(labels, return_inverse=True)[1]; targets that are not classes are not supported."),
        ({"train": (X, np.eye(2)[Y])}, "received float64 [10, 2]. Turn one-hot labels"),
        ({"train": (X, Y / 2)}, "received float64 [10]. Turn one-hot labels"),
        ({"train": (X, np.where(Y, np.nan, Y))}, "received float64 [10]. Turn one-hot labels"),
        ({"train": (X, np.array(["cat", "dog"])[Y])}, "received <U3 [10]. Turn one-hot labels"),
        ({"train": (X, Y - 1)}, "received -1 to 0. Turn one-hot labels"),
        ({"train": (X, Y * 10**12)}, "received 0 to 1000000000000. Turn one-hot labels"),
        ({"train": (X, Y * 0)}, "There is one class only: expected labels of 2 or more classes. Check the labels."),
        ({"train": (X[:0], Y[:0])}, "The inputs of 'train' must be numbers [n, ...] with n of 1 or more, channels "
         "last: received uint8 [0, 3, 2]. Convert them; np.moveaxis(inputs, 1, -1) moves channels to the end."),
        ({"train": (X.astype(str), Y)}, "must be numbers [n, ...] with n of 1 or more, channels last: received <U3"),
        ({"train": (X * 1j, Y)}, "received complex128 [10, 3, 2]."),
        ({"train": (np.zeros((10, 0)), Y)}, "received float64 [10, 0]."),
        ({"train": (np.zeros((10, 3, 14, 14)), Y)}, "received float64 [10, 3, 14, 14]. Convert them; "
         "np.moveaxis(inputs, 1, -1) moves channels to the end."),
        ({"test": (np.where(np.arange(60).reshape(10, 3, 2) == 47, np.nan, X), Y)}, "Example 7 of 'test' contains nan: "
         "expected finite numbers. Remove the example or replace the value, for instance by np.nan_to_num."),
        ({"validation": (np.where(X == 59, -np.inf, X), Y)}, "Example 9 of 'validation' contains -inf: expected"),
        ({"train": (X * 1e38, Y)}, "Example 0 of 'train' contains inf: expected finite"),
        ({"class_names": ["one"]}, "Label 1 has no name: received 1 class names. Name every class."),
        ({"validation": (X[:, :2], Y)}, "'train' has [3, 2, 1] of uint8, 'validation' has [2, 2, 1] of uint8."),
        ({"test": (X / 2, Y)}, "'train' has [3, 2, 1] of uint8, 'test' has [3, 2, 1] of float32,"),
        ({"class_names": list("aba")}, "Two classes have one name: received a, b, a. Give each class its own name."),
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


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3))
PIXELS[0, 0, 0] = 0, 255, 128
FLAGS = (PIXELS > 99).astype(np.int64)


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        (PIXELS.astype(np.uint8), ("uint8", (4, 4, 3), "0..255")),
        (PIXELS.astype(np.uint8) // 9, ("uint8", (4, 4, 3), "0..255")),
        (PIXELS.astype(np.uint8)[..., 0], ("uint8", (4, 4, 1), "0..255")),
        (PIXELS, ("uint8", (4, 4, 3), "0..255")),
        (PIXELS.astype(np.uint16), ("uint8", (4, 4, 3), "0..255")),
        (PIXELS.astype(np.uint64)[..., 0], ("uint8", (4, 4, 1), "0..255")),
        ((PIXELS // 2).astype(np.int8), ("uint8", (4, 4, 3), "other")),
        (PIXELS.reshape(12, 48), ("uint8", (48,), "0..255")),
        (PIXELS.astype(np.uint16) * 257, ("float32", (4, 4, 3), "other")),
        (PIXELS - 1, ("float32", (4, 4, 3), "other")),
        (PIXELS + 1, ("float32", (4, 4, 3), "other")),
        (FLAGS, ("float32", (4, 4, 3), "0..1")),
        (FLAGS.astype(np.uint8), ("float32", (4, 4, 3), "0..1")),
        (FLAGS.astype(np.uint8)[..., 0], ("float32", (4, 4, 1), "0..1")),
        (FLAGS.astype(np.uint8) * 2, ("uint8", (4, 4, 3), "0..255")),
        (FLAGS.astype(np.uint8) * 0, ("uint8", (4, 4, 3), "0..255")),
        (FLAGS * 0, ("float32", (4, 4, 3), "0..1")),
        (PIXELS > 99, ("float32", (4, 4, 3), "0..1")),
        (PIXELS / 255, ("float32", (4, 4, 3), "0..1")),
        ((PIXELS / 255).astype(np.float16), ("float32", (4, 4, 3), "0..1")),
        ((PIXELS / 255)[..., 0], ("float32", (4, 4), "0..1")),
        (PIXELS.astype(np.float32), ("float32", (4, 4, 3), "0..255")),
        (PIXELS / 16, ("float32", (4, 4, 3), "other")),
        (PIXELS / 127.5 - 1, ("float32", (4, 4, 3), "other")),
        ((PIXELS - PIXELS.mean()) / PIXELS.std(), ("float32", (4, 4, 3), "other")),
        (np.tile(PIXELS, (1, 4, 4, 4))[..., :1], ("uint8", (16, 16, 1), "0..255")),
        (np.tile(PIXELS, (1, 4, 4, 4))[..., :2], ("uint8", (16, 16, 2), "0..255")),
        (np.tile(PIXELS, (1, 4, 4, 5))[..., :13], ("uint8", (16, 16, 13), "0..255")),
        (np.tile(PIXELS, (1, 1, 2, 3)), ("uint8", (4, 8, 9), "0..255")),
    ],
)  # fmt: skip
def test_type_and_range_follow_from_values(
    array_options: dict[str, Any], inputs: NDArray[Any], kind: tuple[str, tuple[int, ...], str]
) -> None:
    split = from_arrays(
        (inputs, Y.repeat(2)[:12]), **{**array_options, "shuffle": False, "validation_fraction": 1}
    ).train
    assert (split.spec.input_dtype, split.spec.input_shape, split.spec.value_range) == kind
    np.testing.assert_allclose(
        read(split)[0].reshape(inputs.shape), inputs, rtol=1e-3 if inputs.dtype == "f2" else 1e-6
    )


BYTES, BITS, REAL = PIXELS.astype(np.uint8), FLAGS.astype(np.uint8), PIXELS.astype(np.float32)


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        (PIXELS.astype(np.int32), FLAGS, ("uint8", "0..255")),
        (PIXELS.astype(np.int32), PIXELS - 9, ("float32", "other")),
        # A split of dark pixels beside others, also in whole numbers as float32.
        (BYTES, BITS, ("uint8", "0..255")),
        (BYTES, BITS * 0, ("uint8", "0..255")),
        (BYTES * 0, BYTES, ("uint8", "0..255")),
        (BYTES, BYTES // 16, ("uint8", "0..255")),
        (BYTES, BITS.astype(np.int64), ("uint8", "0..255")),
        (REAL, REAL * 0, ("float32", "0..255")),
        (REAL, np.round(REAL / 255), ("float32", "0..255")),
        (BITS, BITS > 0, ("float32", "0..1")),
        (BITS, BITS * 0, ("float32", "0..1")),
        (BITS * 0, FLAGS * 0, ("uint8", "0..255")),
        (BITS, FLAGS, ("float32", "0..1")),
        (REAL / 255, BITS, ("float32", "0..1")),
        (REAL / 255, REAL / 510, ("float32", "0..1")),
        (REAL / 16, REAL / 255, ("float32", "other")),
        # Certainly two ranges
        (REAL, REAL / 255, "'train' 0 to 255, 'test' 0 to 1"),
        (REAL / 255, REAL, "'train' 0 to 1, 'test' 0 to 255"),
        (REAL, REAL / 127.5 - 1, "'train' 0 to 255, 'test' -1 to 1"),
        (BYTES, REAL / 255, "'train' 0 to 255, 'test' 0 to 1"),
        (PIXELS, PIXELS / 510, "'train' 0 to 255, 'test' 0 to 0.5"),
        (BITS, BYTES, "'train' 0 to 1, 'test' 0 to 255"),
        (FLAGS, PIXELS, "'train' 0 to 1, 'test' 0 to 255"),
        (REAL, BITS > 0, "'train' 0 to 255, 'test' 0 to 1"),
        (BITS > 0, BYTES, "'train' 0 to 1, 'test' 0 to 255"),
    ],
)  # fmt: skip
def test_splits_have_one_type_and_one_range(
    array_options: dict[str, Any], train: NDArray[Any], test: NDArray[Any], kind: tuple[str, str] | str
) -> None:
    """The values of one split do not decide on its own type, unless they are certainly of another range."""
    y = Y.repeat(2)[:12]
    if isinstance(kind, str):
        with pytest.raises(DataError) as raised:
            from_arrays((train, y), test=(test, y), **array_options)
        assert str(raised.value) == (
            f"The splits have inputs in different ranges: {kind}. Expected one. Scale all, or none."
        )
        return
    splits = from_arrays((train, y), test=(test, y), **array_options)
    assert {(split.spec.input_dtype, split.spec.value_range) for split in splits.named().values()} == {kind}


@pytest.mark.parametrize(
    ("version", "inputs", "kind"),
    [
        (1, PIXELS, ("float32", None)),
        (1, BITS, ("uint8", "0..255")),
        (2, BITS, ("uint8", "0..255")),
        (2, FLAGS, ("float32", "0..1")),
    ],
)
def test_earlier_rules_keep_the_types_of_integers(
    array_options: dict[str, Any], version: int, inputs: NDArray[Any], kind: tuple[str, str | None]
) -> None:
    with using_split_rules(version):
        splits = from_arrays((inputs, Y.repeat(2)[:12]), **array_options)
        test = from_arrays((REAL, Y.repeat(2)[:12]), test=(REAL / 255, Y.repeat(2)[:12]), **array_options).test
    assert (splits.train.spec.input_dtype, splits.train.spec.value_range) == kind
    assert test is not None


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((1, 2, 3) * 4, "class, which no model will learn: 0"),
        ((0, 1, 255) * 4, "253 classes, which no model will learn: 2, 3, 4 and 250 more"),
        ((0, 1, 2) * 4, ""),
    ],
)
def test_classes_without_training_examples_are_named(
    array_options: dict[str, Any], caplog: pytest.LogCaptureFixture, labels: tuple[int, ...], names: str
) -> None:
    from_arrays((PIXELS, np.array(labels)), **array_options)
    assert [names in record.getMessage() for record in caplog.records] == [True] * bool(names)


def test_class_only_in_validation_is_named(array_options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    from_arrays((X, Y), (X, np.where(Y, 1, 2)), **array_options)
    assert ["1 class, which no model will learn: 2" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("names", "version"),
    [
        (("train", "validation", "test"), 1),
        (("train", "valid", "test"), 2),
        (("train", "val", "test"), 3),
        (("train", "dev", "testing"), 3),
        (("Training", "VAL", "Test"), 3),
    ],
)
def test_npz_accepts_usual_names_of_arrays(
    tmp_path: Path,
    array_options: dict[str, Any],
    names: tuple[str, ...],
    version: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "meine Zahlen ö.npz"
    arrays: dict[str, Any] = {}
    for name, count in zip(names, (10, 4, 2), strict=True):
        arrays |= {f"{'x' if name.islower() else 'X'}_{name}": X[:count], f"y_{name}": Y[:count]}
    np.savez(file, **arrays)
    with using_split_rules(version):
        splits = npz(str(file), **array_options)
    assert splits.test is not None
    assert [part.spec.num_examples for part in (splits.train, splits.validation, splits.test)] == [10, 4, 2]
    assert splits.train.spec.source == str(file)
    assert caplog.messages == []


def test_earlier_rules_know_fewer_names_of_arrays(tmp_path: Path, array_options: dict[str, Any]) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x_train=X, y_train=Y, X_test=X, Y_test=Y, x_dev=X[:4], y_dev=Y[:4])
    assert npz(str(file), **array_options).validation.spec.num_examples == 4
    with using_split_rules(2):
        old = npz(str(file), **array_options)
    assert old.train.spec.num_examples + old.validation.spec.num_examples == 10
    assert old.test is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, "has no x_train: expected a NumPy .npz file with x_train and y_train. Save it with np.savez"),
        ({"x_train": X}, "has x_train: expected x_train, y_train. Save both, once."),
        ({"x_train": X, "X_train": X, "y_train": Y}, "has x_train, X_train, y_train: expected x_train, y_train."),
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
