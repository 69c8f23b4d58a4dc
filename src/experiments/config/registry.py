"""Registers the type of every built-in option, so that a YAML file can name it as its schema."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from hydra.core.config_store import ConfigStore

from experiments.config.fields import OPTIONS
from experiments.config.schemas.commands import Compare, Config, Doctor, Evaluate, Inspect, Predict

PACKAGED = Path(__file__).parents[1] / "conf"
CONF = str(PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf")
"""Folder of the built-in YAML files: in the package if installed from a wheel, otherwise at the top of the checkout."""
COMMANDS: dict[str, type] = {
    "train": Config,
    "evaluate": Evaluate,
    "predict": Predict,
    "compare": Compare,
    "inspect": Inspect,
    "doctor": Doctor,
}
GROUPS = ("data", "model", "optimizer", "schedule", "loss", "metrics", "augment", "loop", "callbacks", "logging")
COMBINED = ("metrics", "augment", "callbacks")
"""Groups of which several options can be selected: named dicts of components."""


def about(command: str) -> str:
    """Describes a command in a line, as its schema does."""
    return str(COMMANDS[command].__doc__)


def schemas(group: str) -> Mapping[str, type]:
    """Returns the dataclass of each option of a group, from the module `experiments.config.schemas.<group>`."""
    import_module(f"experiments.config.schemas.{group}")
    return OPTIONS[group]


def register() -> None:
    """Makes `/schema/<group>/<option>` available to the defaults lists in `conf/`."""
    store = ConfigStore.instance()
    for command, node in COMMANDS.items():
        store.store(group="schema", name="config" if command == "train" else command, node=node)
    for group in GROUPS:
        for option, schema in schemas(group).items():
            store.store(group=f"schema/{group}", name=option, node=schema)
    # Hydra deep-copies its sources, including this store, 180 times for one --help, which takes 3 s. Each loaded node
    # is copied in any case.
    store.__deepcopy__ = lambda _: store  # type: ignore[attr-defined]
