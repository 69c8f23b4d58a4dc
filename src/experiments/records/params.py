"""Flattens the config into params for a tracking store."""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.tracking.redaction import mask_tree

LONGEST_VALUE = 6000
LONGEST_KEY = 250
"""Limits of MLflow, in characters."""
CUT = " ... (cut)"
_REFUSED = re.compile(r"[^/\w.\- :]")


def flatten(cfg: DictConfig) -> dict[str, str]:
    """Returns every value of the resolved config as text by dotted key. Lists are JSON; secrets are masked."""
    tree = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    params: dict[str, str] = {}
    for key, value in _leaves(tree, ""):
        params[_unique_key(_valid_key(key), params)] = _text(value)
    return params


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        yield prefix, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - len(CUT)] + CUT


def _valid_key(key: str) -> str:
    """Replaces characters that MLflow refuses, and slashes in keys that are not normalized paths."""
    valid = _REFUSED.sub("_", key)[:LONGEST_KEY]
    return valid if posixpath.normpath(valid) == valid and valid[0] not in "/." else valid.replace("/", "_").strip(".")


def _unique_key(key: str, taken: Mapping[str, str]) -> str:
    number = 2
    unique = key
    while unique in taken:
        unique = f"{key[: LONGEST_KEY - 5]}_{number}"
        number += 1
    return unique
