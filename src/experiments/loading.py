"""Loads the heavy packages faster."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Keeps Python's garbage collector from the imports meanwhile, and from what they made for good.

    They make half a million objects that live as long as the process. Looking through them again and again is a
    quarter of the time of the imports, and 0.3 s of every later collection.
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
