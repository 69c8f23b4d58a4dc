"""Saves and restores the state of callbacks and random generators."""

import copy
import random
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from experiments.errors import ExperimentError

State = dict[str, Any]
"""Names -> numbers, strings, None, arrays, and lists or dicts of these."""
Arrays = dict[str, np.ndarray]
KERAS: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
}
"""Public attributes that decide the next actions of Keras's own callbacks. Restoring all of vars() is wrong: Keras
flips the sign of `min_delta` at the end of the first epoch, and would flip it again."""
ARRAY = "$array"
"""The only key of a JSON object that represents an array."""


@runtime_checkable
class Stateful(Protocol):
    """A callback with state to resume. `set_state` is called after `on_train_begin`, which resets callbacks."""

    def get_state(self) -> State: ...

    def set_state(self, state: State) -> None: ...


def keeps_state(callback: keras.callbacks.Callback) -> bool:
    """Returns True if the state of the callback can be saved, by its own methods or by this module."""
    return isinstance(callback, (Stateful, *KERAS))


def get_state(callback: keras.callbacks.Callback) -> State:
    if isinstance(callback, Stateful):
        return callback.get_state()
    return {name: getattr(callback, name) for name in _attributes(callback)}


def set_state(callback: keras.callbacks.Callback, state: State) -> None:
    if isinstance(callback, Stateful):
        callback.set_state(state)
        return
    for name in _attributes(callback):
        setattr(callback, name, state[name])


def _attributes(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in KERAS.items() if isinstance(callback, kind)), ())


class Watch:
    """Detects unsaved state: attributes that change during training, in callbacks that have no `get_state`.

    Callbacks of this package are skipped, because they save the state that they need.
    """

    def __init__(self, callbacks: Mapping[str, keras.callbacks.Callback]) -> None:
        self._watched = {
            name: callback
            for name, callback in callbacks.items()
            if not keeps_state(callback) and not type(callback).__module__.startswith("experiments.")
        }
        self._before = {name: _snapshot(callback) for name, callback in self._watched.items()}

    def unsaved_state(self) -> dict[str, list[str]]:
        """Returns names of callbacks -> attributes that a resumed run would lose."""
        changed = {
            name: [key for key, value in _snapshot(callback).items() if not _equal(value, self._before[name].get(key))]
            for name, callback in self._watched.items()
        }
        return {name: keys for name, keys in changed.items() if keys}


def _snapshot(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Copies the attributes whose types can represent state. Models, data and files are not state of a callback."""
    kinds = (bool, int, float, str, list, dict, set, tuple, np.ndarray, np.generic, type(None))
    own = {name: value for name, value in vars(callback).items() if name not in ("_model", "params", "_params")}
    return {name: copy.copy(value) for name, value in own.items() if isinstance(value, kinds)}


def _equal(value: Any, before: Any) -> bool:
    if isinstance(value, np.ndarray) or isinstance(before, np.ndarray):
        return bool(np.array_equal(value, before))
    try:
        return bool(value == before)
    except ValueError:  # Containers with different arrays cannot be compared; they count as changed.
        return False


def random_state() -> State:
    """Returns the state of Python's and NumPy's global generators, which user code may draw from."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {"python": [version, list(internal), gauss], "numpy": [kind, np.asarray(keys), position, has_gauss, cached]}


def set_random_state(state: State) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))


def pack(value: Any, arrays: Arrays, owner: str) -> Any:
    """Converts `value` to JSON types. Moves its arrays to `arrays`, and leaves their names. `owner` is for errors."""
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): pack(item, arrays, f"{owner}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item, arrays, owner) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ExperimentError(
        f"{owner} is a {type(value).__name__}, which a checkpoint cannot store: expected numbers, strings, None, NumPy "
        "arrays, and lists or dicts of these. Change its get_state."
    )


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict) and ARRAY in value:
        return arrays[value[ARRAY]]
    if isinstance(value, dict):
        return {key: unpack(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    return value
