"""Loads the heavy packages faster."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def loading(package: str = "tensorflow") -> Iterator[None]:
    """Keeps Python's garbage collector from the imports meanwhile, and from what they made for good.

    package: the heaviest. Where it is there already nothing is done, as there may be garbage by then.

    They make half a million objects that live as long as the process. Looking through them again and again is a
    quarter of the time of the imports, and 0.3 s of every later collection. What there is when the process ends is not
    looked through either: that takes 1.3 s of processor time, and whoever stopped it waits.
    """
    if not gc.isenabled() or package in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        _freeze_at_the_end()


@cache
def _freeze_at_the_end() -> None:
    """Once."""
    atexit.register(gc.freeze)
