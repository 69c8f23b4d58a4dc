"""What makes two runs the same: the values, data, code, versions and machine that decide the bits of the weights."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.records.environment import all_cores, cpu_type
from experiments.records.params import flatten

NEUTRAL = (
    "epochs",
    "progress",
    "resume",
    "resume_allow",
    "checkpoint",
    "tensorboard",
    "logging",
    "sweep",
    "monitor.max_loss",
    "runtime.threads",
    # The digest says what these lead to.
    "data.path",
    "data.url",
    "data.sha256",
    "data.allow_leakage",
    "data.rescan",
    # None of these changes a bit.
    "data.num_parallel_calls",
    "data.prefetch",
    "data.cache",
    "data.cache_dir",
    "data.cache_required",
    # The check for divergence acts before it; version 0.1 had it among the defaults.
    "callbacks.terminate_on_nan",
)
"""Keys, or groups of keys, that cannot change what is learned, or that are parts of a fingerprint of their own."""
PACKAGES = ("tensorflow", "keras", "numpy")
PREFIX = "fingerprint."


@dataclass(frozen=True)
class Fingerprint:
    """config, code, versions, data: SHA-256 of each; threads: compute threads of one operation.

    replicas: devices that share each batch.
    """

    config: str
    code: str
    versions: str
    data: str
    epochs: int
    cpu: str
    threads: int
    replicas: int

    def tags(self) -> dict[str, str]:
        return tags_of({name: str(value) for name, value in asdict(self).items()})


def tags_of(parts: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run with these parts of a fingerprint."""
    return {f"{PREFIX}{name}": value for name, value in parts.items()}


def recorded(tags: Mapping[str, str]) -> dict[str, str]:
    """The parts that a run's tags record; older versions recorded fewer."""
    return {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}


def fingerprint(cfg: DictConfig, data: Iterable[str], threads: int | None, replicas: int) -> Fingerprint:
    """data: the digests of its splits; threads: compute threads, None where TensorFlow chooses."""
    return Fingerprint(
        **comparable(cfg),
        data=_digest(*(digest.encode() for digest in data)),
        epochs=cfg.epochs,
        cpu=cpu_type(),
        threads=all_cores() if threads is None else threads,
        replicas=replicas,
    )


def comparable(cfg: DictConfig) -> dict[str, str]:
    """The parts that are known before any data is read."""
    return {
        "config": _digest(json.dumps(values(cfg), sort_keys=True).encode()),
        "code": code_digest(cfg),
        "versions": _digest(*(f"{package} {version(package)}".encode() for package in PACKAGES)),
    }


def code_digest(cfg: DictConfig) -> str:
    """Of this package and of the modules that targets of `cfg` name."""
    return _digest(*(content for path in _code_files(cfg) for content in (path.name.encode(), path.read_bytes())))


def values(cfg: DictConfig) -> dict[str, str]:
    """Dotted key -> text of every value that can change what is learned; a weights file counts by what it holds."""
    neutral = re.compile(rf"(?:{'|'.join(map(re.escape, NEUTRAL))})(?:\..*)?")
    # An empty group says as much as one that is not there.
    found = {key: value for key, value in flatten(cfg).items() if value != "{}" and not neutral.fullmatch(key)}
    weights = Path(found.get("model.weights", ""))
    if weights.is_file():
        found["model.weights"] = f"sha256:{_digest(weights.read_bytes())}"
    return found


def _code_files(cfg: DictConfig) -> Iterator[Path]:
    """This package and the modules of a person's own parts, found without importing them."""
    yield from sorted(Path(__file__).parents[1].rglob("*.py"))
    for name in sorted({target.partition(".")[0] for target in targets(cfg)}):
        found = None if name in ("experiments", "__main__", *PACKAGES) else importlib.util.find_spec(name)
        for folder in (found and found.submodule_search_locations) or []:
            yield from sorted(Path(folder).rglob("*.py"))
        if found and found.submodule_search_locations is None and found.has_location and found.origin:
            yield Path(found.origin)


def targets(cfg: DictConfig) -> Iterator[str]:
    """The dotted names of the functions and classes that `cfg` names."""
    yield from _targets(OmegaConf.to_container(cfg))


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "train_step") and isinstance(value, str):
                yield value
            yield from _targets(value)


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
