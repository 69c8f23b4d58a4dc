"""Every option and recipe in conf/ composes, is typed, and passes the checks."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from experiments.config import check
from experiments.config.registry import CONF, GROUPS, schemas
from experiments.config.schemas.commands import Config

Compose = Callable[..., DictConfig]
NAMED_DICTS = ("metrics", "augment", "callbacks")
NEEDED = {
    "model=application": "model.architecture=DenseNet121",
    "data=npz": "data.path=x",
    "data=image_folder": "data.path=x",
}
"""What has no value in YAML, because only the person knows it."""


def options(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONF, group).glob("*.yaml"))


def load(group: str, option: str) -> DictConfig:
    return DictConfig(OmegaConf.load(Path(CONF, group, f"{option}.yaml")))


def schema_named_in(group: str, option: str) -> str:
    place = option if group in NAMED_DICTS else "_here_"
    return f"/schema/{group}/{option}@{place}"


OPTIONS = [(group, option) for group in GROUPS for option in options(group)]
TYPED = [(group, option) for group in GROUPS for option in schemas(group)]
RECIPES = [(group, option) for group in ("experiment", "debug") for option in options(group)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes(composed: Compose, group: str, option: str) -> None:
    choice = f"{group}={option}"
    cfg = composed(choice, *([NEEDED[choice]] if choice in NEEDED else []))
    check(cfg)
    assert OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize(("group", "option"), RECIPES)
@pytest.mark.parametrize("loop", ["fit", "tape"])
def test_every_recipe_composes_and_passes(composed: Compose, group: str, option: str, loop: str) -> None:
    cfg = composed(f"{group}={option}", f"loop={loop}")
    check(cfg)
    assert cfg.loop._target_.lower().endswith(f"{loop}loop")


@pytest.mark.parametrize(("group", "option"), RECIPES)
def test_every_recipe_starts_with_what_it_shows(group: str, option: str) -> None:
    first, second = Path(CONF, group, f"{option}.yaml").read_text(encoding="utf-8").splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith("# ")


def test_recipes_and_debug_combine(composed: Compose) -> None:
    cfg = composed("experiment=cats_dogs_synthetic", "debug=one_batch")
    check(cfg)
    assert (cfg.epochs, cfg.data.limit, cfg.model.alpha) == (1, cfg.data.batch_size, 0.35)


@pytest.mark.parametrize(("group", "option"), TYPED)
def test_every_type_is_named_by_its_option(group: str, option: str) -> None:
    assert schema_named_in(group, option) in load(group, option)["defaults"]


@pytest.mark.parametrize(("group", "option"), TYPED)
def test_every_typed_key_has_its_value_in_yaml(composed: Compose, group: str, option: str) -> None:
    """The dataclasses hold types alone, so a key without a value anywhere in YAML would be found missing here."""
    node = composed(f"{group}={option}")[group]
    node = node[option] if group in NAMED_DICTS else node
    personal = NEEDED.get(f"{group}={option}", "").partition("=")[0]
    assert OmegaConf.missing_keys(node) == ({personal} if personal else set())
    assert OmegaConf.get_type(node) is schemas(group)[option]


@pytest.mark.parametrize(
    "schema", [Config, *[schemas(group)[option] for group, option in TYPED]], ids=lambda s: s.__name__
)
def test_no_type_carries_a_value(schema: type) -> None:
    for item in fields(schema):
        value = item.default_factory() if callable(item.default_factory) else item.default
        assert value == "???" or is_dataclass(value) or value == {}, f"{schema.__name__}.{item.name}"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_target_can_be_imported(composed: Compose, group: str, option: str) -> None:
    for target in targets(OmegaConf.to_container(composed(f"{group}={option}")[group])):
        assert callable(get_object(target))


def targets(node: Any) -> list[str]:
    if not isinstance(node, Mapping):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [found for child in node.values() for found in targets(child)]


def test_every_combination_of_named_options_merges(composed: Compose) -> None:
    cfg = composed(*(f"{group}=[{','.join(schemas(group))}]" for group in NAMED_DICTS))
    check(cfg)
    assert all(set(cfg[group]) == set(schemas(group)) for group in NAMED_DICTS)


def test_the_composed_config_is_shown_without_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.train", "--cfg", "job", "model=mlp", "epochs=7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = OmegaConf.create(done.stdout)
    assert (shown.epochs, shown.model.hidden_sizes) == (7, [128, 64])
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
