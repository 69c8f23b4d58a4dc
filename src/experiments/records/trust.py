"""Decides what a record may name. A record is everything that is read from a tracking store or another's folder."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Comes with OmegaConf, whose version it has to fit.
import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.config.registry import COMBINED, CONF, GROUPS
from experiments.errors import TrackingError, reading

_BUILT = ("model", "loss", "metrics", "data")
LARGEST_FILE, DEEPEST = 10_000_000, 50
"""Bytes, and levels of lists and mappings within each other."""
UNSAFE = re.compile(
    "Lambda|TFSMLayer|TorchModuleWrapper|JaxLayer|FlaxLayer|StringLookup|IntegerLookup|TextVectorization|__lambda__|"
    "Input|KLD|MAE|MAPE|MSE|MSLE"
)
"""Layers of Keras that run code or read files which their arguments name, and functions that are named like classes."""
_RESERVED = ("_partial_", "_recursive_", "_convert_", "_args_", "_mode_", "class_name")
"""Keys that change how Hydra calls a target, and the key by which Keras builds an object from a mapping."""
_IN_TEXT = re.compile(r"\b(?:_target_|train_step)['\"]?\s*[:=]\s*['\"]?([\w.]+)")
_LIBRARIES = re.compile(
    r"(?:keras\.(?:layers|losses|metrics|optimizers|optimizers\.schedules|initializers|regularizers|constraints)"
    r"|optuna\.(?:samplers|pruners))\.([A-Z]\w*)"
)
_OF_TODAY = re.compile(
    r"(?:hydra|sweep|resume|resume_allow|allow_modules|on_end|logging\.tracking_uri|data\.(?:url|sha256|cache_dir))(?:\..*)?"
)
"""Keys of stored overrides that are left out, because today's values apply."""
EXECUTED = re.compile(rf"\$|\\|\.keras\b|\b(?:{'|'.join(_RESERVED)})\b")
_NESTED = re.compile(r"(?:logging|data)=.*\b(?:tracking_uri|url|sha256|cache_dir)\s*:", re.DOTALL)
"""Mappings for a section, which contain such a key."""
_OUTSIDE = re.compile(r"(?<![\w.-])/|~|\.\.|://")
_FREE = ("data.path", "model.weights", "logging.tags.", "logging.run_name", "logging.experiment_name")
"""Beginnings of keys whose values are only shown, or name files that are only read."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's loader is ten times faster


def read_record(path: Path, owner: str) -> Any:
    """Returns the content of a YAML or JSON file as plain data. Raises TrackingError, with `owner`, if it is wrong."""
    with reading(f"{path.parent.name}/{path.name} of {owner}"):
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            raise ValueError("it is missing, not a regular file, or larger than 10 MB")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        depth = 0  # A small file with aliases or a deep structure can fill the memory.
        for event in yaml.parse(text, _LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it has an alias, or more than {DEEPEST} levels within each other")
        return yaml.load(text, _LOADER)


def check_targets(tree: Any, owner: str, modules: Collection[str] = (), *, stored: bool = False) -> None:
    """Raises TrackingError for the first target in the config `tree` that a record may not name. Imports nothing.

    A built-in target is allowed only as the target of its section, because some load files or download. Those of
    `modules` are allowed everywhere. `stored`: the config itself is a record, of which only `_BUILT` is used.
    """
    builtin = {group: _targets_below(Path(CONF), group) for group in GROUPS}
    own = _own_targets().difference(*builtin.values())
    values = dict(walk({name: tree.get(name) for name in (_BUILT if stored else tree)}))
    for path, value in values.items():
        if path[-1] not in ("_target_", "train_step", *(_RESERVED if stored else ())):
            continue
        # A reserved key is allowed beside a target that the user has named.
        found = values.get((*path[:-1], "_target_")) if path[-1] in _RESERVED else value
        name = found if isinstance(found, str) else ""
        of_section = len(path) == (3 if path[0] in COMBINED else 2)
        library, module = _LIBRARIES.fullmatch(name), name.rpartition(".")[0]
        named = name in own or module in tuple(modules)
        known = (library and not UNSAFE.fullmatch(library[1])) or (of_section and name in builtin.get(path[0], ()))
        if not named and (not known or path[-1] in _RESERVED):
            raise TrackingError(
                f"{owner} names {'.'.join(path)[:200]}={str(value)[:200]!r}, which is not a built-in component: a "
                "record is not executed. Expected a target of this installation, of conf/ or --config-dir, or of this "
                f"command line. If you trust it, add allow_modules=[{module[:200] or 'MODULE'}]."
            )


def vetted_overrides(stored: Sequence[str], typed: Collection[str], owner: str) -> list[str]:
    """Returns the stored overrides without those that today's values replace. The composed config is checked later.

    Raises TrackingError for those with effects outside of the run. `typed`, those of today's command, are allowed.
    """
    with reading(f"config/overrides.yaml of {owner}"):
        parsed = OverridesParser.create().parse_overrides(list(stored))
    kept = []
    for text, override in zip(stored, parsed, strict=True):
        key, value = override.key_or_group.replace("/", "."), text.partition("=")[2].replace("runs:/", "")
        outside = _NESTED.match(f"{key}={value}") or (_OUTSIDE.search(value) and not key.startswith(_FREE))
        if text in typed or not (_OF_TODAY.fullmatch(key) or outside or override.package or EXECUTED.search(text)):
            kept.append(text)
        elif not _OF_TODAY.fullmatch(key):
            raise TrackingError(
                f"{owner} was started with {text[:200]!r}, which contains an interpolation, an address, a place "
                "outside of the run or a key of Hydra or this command: a record must not do that. Expected plain "
                "values. If you trust it, type the same override again in this command."
            )
    return kept


def typed_overrides() -> list[str]:
    """Returns the overrides of this command as typed, or [] if the config was not composed by a command."""
    # A resumed run reads `${oc.env:NAME}` again, so it is not resolved.
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None
    return list(map(str, typed or ()))


def _own_targets() -> set[str]:
    """Returns targets of this command line, of --config-dir, hydra.searchpath and of conf/ in the working folder."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    folders = [Path("conf"), *(Path(source.path) for source in sources if source.schema == "file")]
    # Other subfolders may contain records.
    found = [_targets_below(folder, group) for folder in folders for group in (*GROUPS, "experiment", "debug")]
    return set(_IN_TEXT.findall("\n".join(typed_overrides()))).union(*found)


def _targets_below(folder: Path, group: str) -> set[str]:
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in folder.glob(f"{group}/**/*.yaml"))
    return {name for text in texts for name in _IN_TEXT.findall(text)}


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the keys that lead to each value below `node`, and the value."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield (*path, str(key)), value
        yield from walk(value, (*path, str(key)))
