"""Every data and augmentation option composes, fits its type and calls its target with the keys it takes."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from experiments.config.registry import schemas

CONF = Path(__file__).parents[2] / "conf"
RUNTIME = {"seed", "augment"}


@pytest.fixture(autouse=True)
def composer() -> Iterator[None]:
    store = ConfigStore.instance()
    for group in ("data", "augment"):
        for option, schema in schemas(group).items():
            store.store(group=f"schema/{group}", name=option, node=schema)
    store.store(name="data_only", node={"defaults": [{"data": "digits"}, {"augment": "none"}, "_self_"]})
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("data_only", overrides=list(overrides))


def keywords(target: Any) -> set[str]:
    """The parameters of `target`, with those of its `**options`."""
    names = set()
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names |= set(get_type_hints(get_type_hints(target)[parameter.name].__args__[0]))
        else:
            names.add(parameter.name)
    return names


@pytest.mark.parametrize("option", schemas("data"))
def test_the_keys_of_a_data_option_are_those_its_function_takes(option: str) -> None:
    node = composed(f"data={option}").data
    assert OmegaConf.get_type(node) is schemas("data")[option]
    assert set(node) - {"_target_"} == keywords(get_object(node["_target_"])) - RUNTIME


@pytest.mark.parametrize("option", schemas("augment"))
def test_the_keys_of_an_augmentation_are_those_its_class_takes(option: str) -> None:
    node = composed(f"augment={option}").augment[option]
    assert set(node) - {"_target_"} == keywords(get_object(node["_target_"])) - {"draws", "highest"}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("[flip,rot90]", ["flip", "rot90"]),
        ("standard", ["flip", "crop_and_resize", "color_jitter"]),
        ("[standard,rot90]", ["flip", "crop_and_resize", "color_jitter", "rot90"]),
    ],
)
def test_augmentations_combine(choice: str, names: list[str]) -> None:
    assert list(composed(f"augment={choice}").augment) == names


def test_one_field_of_an_augmentation_can_be_changed() -> None:
    assert composed("augment=standard", "augment.flip.vertical=true").augment.flip.vertical is True


def test_shared_values_are_no_option_of_their_own() -> None:
    options = {file.stem for file in (CONF / "data").glob("*.yaml")}
    assert options == set(schemas("data"))


@pytest.mark.parametrize("override", ["data.batch_siz=3", "data.batch_size=many", "data.shuffle=often"])
def test_misspelled_keys_and_wrong_types_are_refused(override: str) -> None:
    with pytest.raises(Exception, match="data"):
        composed(override)


def test_auto_may_be_a_number() -> None:
    node = composed("data.num_parallel_calls=4", "data.prefetch=0").data
    assert (node.num_parallel_calls, node.prefetch) == (4, 0)


def test_the_types_are_light() -> None:
    code = (
        "import sys, experiments.config.schemas.data, experiments.config.schemas.augment;"
        "print({'tensorflow', 'keras', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
