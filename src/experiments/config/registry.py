"""Registers every built-in option's type, so that a YAML file can name it as its schema."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from hydra.core.config_store import ConfigStore

from experiments.config.schemas.commands import Config, Doctor, Evaluate, Inspect, Predict

PACKAGED = Path(__file__).parents[1] / "conf"
CONF = str(PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf")
"""Inside the package when installed from a wheel, at the top of the checkout otherwise."""
GROUPS = ("data", "model", "optimizer", "schedule", "loss", "metrics", "augment", "loop", "callbacks", "logging")


def schemas(group: str) -> Mapping[str, type]:
    """Option name -> dataclass, as `experiments.config.schemas.<group>.SCHEMAS` lists them."""
    found: Mapping[str, type] = import_module(f"experiments.config.schemas.{group}").SCHEMAS
    return found


def register() -> None:
    """Makes `/schema/<group>/<option>` available to the defaults lists in `conf/`."""
    store = ConfigStore.instance()
    commands = {"evaluate": Evaluate, "predict": Predict, "inspect": Inspect, "doctor": Doctor}
    for name, node in {"config": Config, **commands}.items():
        store.store(group="schema", name=name, node=node)
    for group in GROUPS:
        for option, schema in schemas(group).items():
            store.store(group=f"schema/{group}", name=option, node=schema)
    # Hydra copies its sources, this store among them, 180 times for one --help: 3 s. What is loaded is copied anyway.
    store.__deepcopy__ = lambda _: store  # type: ignore[attr-defined]
