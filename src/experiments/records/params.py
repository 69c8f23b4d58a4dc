"""Flattens the config into params for a tracking store."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.tracking.names import unique_name, valid_name
from experiments.tracking.redaction import mask_tree

LONGEST_VALUE = 6000  # limit of MLflow, in characters
CUT = " ... (cut)"


def flatten(cfg: DictConfig) -> dict[str, str]:
    """Returns every value of the resolved config as text by dotted key. Lists are JSON; secrets are masked."""
    tree = mask_tree(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    params: dict[str, str] = {}
    for key, value in _leaves(tree, ""):
        params[unique_name(valid_name(key), params)] = _text(value)
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
