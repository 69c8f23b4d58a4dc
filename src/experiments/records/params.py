"""The config as flat parameters, the way a tracking store wants them."""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.tracking.redaction import mask_tree

LONGEST_VALUE = 6000
LONGEST_KEY = 250
"""MLflow's limits."""
CUT = " ... (cut)"
_REFUSED = re.compile(r"[^/\w.\- :]")


def flatten(cfg: DictConfig) -> dict[str, str]:
    """Every value of the resolved config: dotted key -> text as in YAML, lists as JSON, secrets masked."""
    tree = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    params: dict[str, str] = {}
    for key, value in _leaves(tree, ""):
        params[_free_key(_valid_key(key), params)] = _text(value)
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
    """MLflow refuses some characters, and keys that are not normal as a path."""
    valid = _REFUSED.sub("_", key)[:LONGEST_KEY]
    return valid if posixpath.normpath(valid) == valid and valid[0] not in "/." else valid.replace("/", "_").strip(".")


def _free_key(key: str, taken: Mapping[str, str]) -> str:
    number = 2
    free = key
    while free in taken:
        free = f"{key[: LONGEST_KEY - 5]}_{number}"
        number += 1
    return free
