"""Text that is safe to show: secrets are masked, and characters that control a terminal are escaped."""

import logging
import re
import sys
from typing import Any

from experiments.tracking.redaction import mask

# C0 and C1 controls, DEL, line separators, marks that change the direction of text, and undecodable bytes of names.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    r"""Escapes control characters, such as `\x1b`, except those in `keep`."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def shortened(text: str, width: int) -> str:
    """Cuts a text to at most `width` characters: a path at its start, other texts at their end."""
    if len(text) <= width:
        return text
    return f"…{text[1 - width :]}" if "/" in text else f"{text[: width - 1]}…"


def safe_text(text: str, *, keep: str = "") -> str:
    """Masks secrets and escapes control characters, for text from errors, servers, data or other users."""
    return visible(mask(text), keep=keep)


class SafeFormatter(logging.Formatter):
    """Formatter of all log files and log lines at the terminal. Tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        return safe_text(super().format(record), keep="\n\t")


class TerminalHandler(logging.StreamHandler[Any]):
    """Writes to the current `sys.stderr`, which a status line or a progress bar replaces while it is shown.

    Hydra's own handler writes to the first one, and so in the middle of the status line.
    """

    def __init__(self, stream: object = None) -> None:
        del stream  # set by Hydra's default
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr
