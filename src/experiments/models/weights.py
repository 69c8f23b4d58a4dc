"""Loads weights from a file or an MLflow run into a network or into the full model around it."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from experiments.errors import ModelError
from experiments.models.run_weights import PREFIXES, load_run_weights

SUFFIXES = (".h5", ".hdf5", ".keras")


def load_weights(source: str, *, network: keras.Model, model: keras.Model, architecture: str) -> None:
    """Loads `source` into `model`, or only into the `network` inside it.

    `source` is a file that ends in .weights.h5, .h5 or .hdf5 (weights of either), a .keras file (a saved model: the
        weights of its network, and those of its head if the shapes are equal), "runs:/ID" or "models:/NAME@ALIAS"
        for the best checkpoint of a run. `architecture` is named in errors.
    Raises ModelError if the file or run does not exist or does not contain such weights.
    """
    if source.startswith(PREFIXES):
        load_run_weights(source, model)
        return
    path = _existing(source)
    if path.suffix != ".keras":
        # A file of arrays does not name the saved model, so the network is tried first, then the full model.
        reason = _try_loading(network, path)
        if reason is not None and _try_loading(model, path) is not None:
            raise misfit(str(path), architecture, reason)
        return
    saved = _saved_model(path)
    if not _copy_weights(saved, network=network, model=model):
        expected = f"{len(network.weights)} arrays of {architecture}"
        raise misfit(source, architecture, f"expected a model with the {expected}, received '{saved.name}'")


def initialized(model: keras.Model, source: str | None, input_shape: tuple[int, ...]) -> keras.Model:
    """Returns the model, built and with the weights of `source` if that is not None."""
    if source is not None:
        model(keras.ops.zeros((1, *input_shape)))
        load_weights(source, network=model, model=model, architecture=model.name)
    return model


def load_network(source: str, network: keras.Model) -> bool:
    """Loads `source` if it is a file of arrays that fit `network` without a head. Returns True if it was loaded."""
    if source.startswith(PREFIXES):
        return False
    path = _existing(source)
    return path.suffix != ".keras" and _try_loading(network, path) is None


def file_state(source: str | None) -> tuple[int, int] | None:
    """Returns modification time (ns) and size, which change with a file's content; None if `source` is not a file."""
    path = Path(source or "").expanduser()
    if not path.is_file():
        return None
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def misfit(source: str, architecture: str, reason: str) -> ModelError:
    return ModelError(
        f"model.weights='{source}' does not fit {architecture}: {reason}. Set model.architecture and model.alpha "
        "to those it was made with, or model.weights=null."
    )


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise ModelError(
            f"model.weights='{source}' is not a file: expected null, imagenet, runs:/ID, models:/NAME@ALIAS or a file "
            f"ending in {', '.join(SUFFIXES)}. Set model.weights=FILE."
        )
    if path.suffix not in SUFFIXES:
        raise _not_weights(path, f"a file name that ends in {', '.join(SUFFIXES)}")
    return path


def _not_weights(path: Path, expected: str) -> ModelError:
    return ModelError(
        f"model.weights='{path}' is not a weights file: expected {expected}. "
        "Set model.weights to a file that Keras saved, or model.weights=null."
    )


def _try_loading(target: keras.Model, path: Path) -> str | None:
    """Loads a file. Returns the reason if it does not fit, and None if it was loaded completely."""
    with warnings.catch_warnings(record=True) as caught:
        # Keras only warns if the file has no arrays for parts of the model. Here, such a file does not fit.
        warnings.simplefilter("always")
        try:
            target.load_weights(path)
        except (ValueError, KeyError) as error:
            return _reason(str(error))
        except OSError as error:
            raise _not_weights(path, "arrays in HDF5 format") from error
    skipped = [str(warning.message) for warning in caught if warning.category is UserWarning]
    return skipped[0] if skipped else None


def _reason(text: str) -> str:
    """Extracts one line from Keras's message, which lists every layer and prints entire arrays."""
    layer = re.search(r"Example error message for object <\w+ name=([^,>]+)", text)
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", text)
    if shapes:
        return f"layer {layer[1] if layer else '?'} expected an array of shape {shapes[1]}, received {shapes[2]}"
    cause = text.split("\n\n")[1] if layer else text
    return cause.splitlines()[0].rstrip(".")


def _saved_model(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError) as error:
        raise _not_weights(path, "a model saved by Keras") from error


def _copy_weights(saved: keras.Model, *, network: keras.Model, model: keras.Model) -> bool:
    """Copies the weights of `model`, or else of `network`, from a part of `saved` with equal shapes, if any."""
    candidates = list(_models_in(saved))
    for target in (model, network):
        for candidate in candidates:
            if _shapes(candidate) == _shapes(target):
                target.set_weights(candidate.get_weights())
                return True
    return False


def _models_in(layer: Any) -> Iterator[keras.Model]:
    if isinstance(layer, keras.Model):
        yield layer
        for inner in layer.layers:
            yield from _models_in(inner)


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.weights]
