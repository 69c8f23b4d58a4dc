"""Loads the heavy packages faster."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Keeps Python's garbage collector from the imports meanwhile, and from what they made for good.

    They make half a million objects that live as long as the process. Looking through them again and again is a
    quarter of the time of the imports, and 0.3 s of every later collection. What there is when the process ends is not
    looked through either: that takes 1.3 s of processor time, and whoever stopped it waits.
    """
    if not gc.isenabled() or gc.get_freeze_count():  # a later job of this process: now there may be garbage
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
