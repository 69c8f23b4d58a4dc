"""Loads the heavy packages faster."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

_loaded = Event()
"""Counting the objects that are kept instead takes 0.04 s, and a sweep asks before each job."""


@contextmanager
def loading() -> Iterator[None]:
    """Keeps Python's garbage collector from the imports meanwhile, and from what they made for good.

    They make half a million objects that live as long as the process. Looking through them again and again is a
    quarter of the time of the imports, and 0.3 s of every later collection. What there is when the process ends is not
    looked through either: that takes 1.3 s of processor time, and whoever stopped it waits.
    """
    if not gc.isenabled() or _loaded.is_set():  # a later job of this process: now there may be garbage
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        _loaded.set()
        atexit.register(gc.freeze)
