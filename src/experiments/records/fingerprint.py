"""Fingerprint of a run: the values, data, code, versions and machine that determine the bits of its weights."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.records.environment import all_cores, cpu_type
from experiments.records.params import flatten
from experiments.records.trust import walk

NEUTRAL = (
    *("epochs", "progress", "resume", "resume_allow", "allow_modules", "on_end", "checkpoint", "tensorboard"),
    *("logging", "sweep", "monitor.max_loss", "runtime.threads"),
    # The data digest covers the effect of these.
    *("data.path", "data.url", "data.sha256", "data.allow_leakage", "data.rescan"),
    # These change no bit of the result.
    *("data.num_parallel_calls", "data.prefetch", "data.cache", "data.cache_dir", "data.cache_required"),
    # A default of version 0.1. It has no effect, because the check for divergence stops the run first.
    "callbacks.terminate_on_nan",
)
"""Keys, or groups of keys, that cannot change the trained weights, or that have their own part of the fingerprint."""
PACKAGES = ("tensorflow", "keras", "numpy")
PREFIX = "fingerprint."


@dataclass(frozen=True)
class Fingerprint:
    """Digests and settings that determine the trained weights.

    `config`, `code`, `versions` and `data` are SHA-256 digests. `threads` is the number of compute threads per
    operation, `replicas` the number of devices that share each batch.
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
    """Returns the tags of a run with these parts of a fingerprint."""
    return {f"{PREFIX}{name}": value for name, value in parts.items()}


def recorded(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the parts of a fingerprint in the tags of a run. Older versions recorded fewer parts."""
    return {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}


def fingerprint(cfg: DictConfig, data: Iterable[str], threads: int | None, replicas: int) -> Fingerprint:
    """Computes the fingerprint. `data` are the digests of the splits; `threads` None is TensorFlow's default."""
    return Fingerprint(
        **comparable(cfg),
        data=joint_digest(*(digest.encode() for digest in data)),
        epochs=cfg.epochs,
        cpu=cpu_type(),
        threads=all_cores() if threads is None else threads,
        replicas=replicas,
    )


def comparable(cfg: DictConfig) -> dict[str, str]:
    """Returns the parts that are known before any data is read."""
    return {
        "config": joint_digest(json.dumps(values(cfg), sort_keys=True).encode()),
        "code": code_digest(cfg),
        "versions": joint_digest(*(f"{package} {version(package)}".encode() for package in PACKAGES)),
    }


def code_digest(cfg: DictConfig) -> str:
    """Returns the digest of this package and of the modules of the custom components in `cfg`."""
    return joint_digest(*(content for path in _code_files(cfg) for content in (path.name.encode(), path.read_bytes())))


def values(cfg: DictConfig) -> dict[str, str]:
    """Returns text by dotted key for each value that can change the trained weights; for a weights file, its digest."""
    neutral = re.compile(rf"(?:{'|'.join(map(re.escape, NEUTRAL))})(?:\..*)?")
    # An empty group is equivalent to a missing one.
    found = {key: value for key, value in flatten(cfg).items() if value != "{}" and not neutral.fullmatch(key)}
    weights = Path(found.get("model.weights", ""))
    if weights.is_file():
        found["model.weights"] = f"sha256:{joint_digest(weights.read_bytes())}"
    return found


def _code_files(cfg: DictConfig) -> Iterator[Path]:
    """Yields the files of this package, of the modules of custom components, and of the user's modules they import."""
    yield from sorted(Path(__file__).parents[1].rglob("*.py"))
    names, own = {target.partition(".")[0] for target in targets(cfg)}, False
    known = {"experiments", "__main__", *PACKAGES}
    while names := names - known:
        known |= names
        files = [path for name in sorted(names) for path in _module_files(name, own)]
        yield from files
        names, own = {name for path in files for name in _imported(path)} - sys.stdlib_module_names, True


def _module_files(name: str, own: bool) -> Iterator[Path]:
    """Yields the files of a module without importing it. `own` leaves out installed packages, whose files are many."""
    found = importlib.util.find_spec(name)
    if found is None or (own and "-packages" in f"{found.origin} {found.submodule_search_locations}"):
        return
    for folder in found.submodule_search_locations or []:
        yield from sorted(Path(folder).rglob("*.py"))
    if found.submodule_search_locations is None and found.has_location and found.origin:
        yield Path(found.origin)


def _imported(path: Path) -> Iterator[str]:
    """Yields the first part of the name of each module that a file imports at any place."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for source, listed in re.findall(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+(.+))", text, re.MULTILINE):
        yield from [source] if source else re.findall(r"(?:^|,)[ \t]*(\w+)", listed)


def targets(cfg: DictConfig) -> Iterator[str]:
    """Yields the dotted names of the functions and classes in `cfg`."""
    named = walk(OmegaConf.to_container(cfg))
    return (value for path, value in named if path[-1] in ("_target_", "train_step") and isinstance(value, str))


def joint_digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()
