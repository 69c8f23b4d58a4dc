"""Finds and builds the networks of `keras.applications` by name."""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from experiments.errors import ModelError, near

Constructor = Callable[..., keras.Model]


def architectures() -> dict[str, Constructor]:
    """Returns the constructors of all networks in this version of Keras by their names, such as "DenseNet121"."""
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name: constructor for name, constructor in members if name[0].isupper()}


def find_architecture(name: str) -> Constructor:
    known = architectures()
    if name not in known:
        raise ModelError(
            f"model.architecture='{name}' is not a network of keras.applications. {near(name, known)} "
            "Set model.architecture=NAME, spelled as in Keras."
        )
    return known[name]


def scales_width(architecture: str) -> bool:
    """Returns True if the network has a width multiplier `alpha`."""
    return "alpha" in inspect.signature(find_architecture(architecture)).parameters


def build_network(
    architecture: str,
    *,
    imagenet: bool,
    include_top: bool,
    alpha: float | None,
    image_size: tuple[int, int],
    num_classes: int,
) -> keras.Model:
    """Builds a network for images of `image_size` x 3 that returns feature maps, or logits with `include_top`.

    Raises ModelError if Keras refuses the arguments or cannot download the ImageNet weights.
    """
    options: dict[str, Any] = {"weights": "imagenet" if imagenet else None, "input_shape": (*image_size, 3)}
    options |= {"include_top": include_top, "classes": num_classes, "classifier_activation": None}
    if alpha is not None:
        options["alpha"] = alpha
    constructor = find_architecture(architecture)
    try:
        return constructor(**options)
    except ValueError as error:
        raise _refusal(architecture, image_size, str(error)) from error
    except Exception as error:  # Keras raises a bare Exception if a download fails.
        if isinstance(error, OSError) or str(error).startswith("URL fetch failure"):
            raise _offline(architecture, str(error)) from error
        raise


def _refusal(architecture: str, image_size: tuple[int, int], reason: str) -> ModelError:
    height, width = image_size
    minimum = re.search(r"at least (\d+)\s*x\s*(\d+)", reason)
    if minimum:
        smallest = f"[{minimum[1]},{minimum[2]}]"
        return ModelError(
            f"data.image_size=[{height},{width}] is too small for model.architecture={architecture}: expected "
            f"{smallest} or larger. Set data.image_size={smallest} for photos, or choose another model."
        )
    return ModelError(
        f"model.architecture={architecture} cannot be built on images of [{height},{width}]: "
        f"{' '.join(reason.split())} Set data.image_size, model.alpha, model.include_top or model.weights to fit."
    )


def _offline(architecture: str, reason: str) -> ModelError:
    address = re.search(r"https?://\S+\.h5", reason)
    name = _cached_name(address[0]) if address else "that file"
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    return ModelError(
        f"model.weights=imagenet: the weights of {architecture} could not be downloaded ({reason}). Without network, "
        f"set model.weights=FILE, or put {name} into {cache}, or set model.weights=null to train from scratch."
    )


def _cached_name(address: str) -> str:
    """Returns the name of the file in Keras's cache: the last part of the address, except for NASNet."""
    name = address.rpartition("/")[2]
    return name.lower().replace("-", "_") if name.startswith("NASNet-") else name
