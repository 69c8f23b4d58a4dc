"""Names of params and metrics that MLflow accepts."""

import posixpath
import re
from collections.abc import Container

LONGEST_KEY = 250  # limit of MLflow, in characters
_REFUSED = re.compile(r"[^/\w.\- :]")


def valid_name(name: str) -> str:
    """Replaces characters that MLflow refuses, and slashes in names that are not normalized paths."""
    valid = _REFUSED.sub("_", name)[:LONGEST_KEY] or "_"
    return valid if posixpath.normpath(valid) == valid and valid[0] not in "/." else valid.replace("/", "_").strip(".")


def unique_name(name: str, taken: Container[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique = f"{name[: LONGEST_KEY - 5]}_{number}"
        number += 1
    return unique
