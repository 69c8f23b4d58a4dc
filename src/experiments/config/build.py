"""Builds the object that a config node describes; the only module that calls Hydra's instantiate."""

from collections.abc import Collection
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.errors import ConfigError

CACHE_FEATURES = "cache_features"


def build(node: DictConfig, without: Collection[str] = (), /, **runtime: Any) -> Any:
    """Calls the node's `_target_` with the values of the node and with `runtime`, which overrides a value of the node.

    The keys in `without` are not passed, nor is a model's `cache_features`, which the run itself reads. The target
    receives plain containers, because Keras cannot save an object that contains a ListConfig. Raises ConfigError if the
    target does not exist or refuses its values.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True, enum_to_str=True))
    for key in (CACHE_FEATURES, *without):
        plain.pop(key, None)
    try:
        factory = instantiate(plain, _partial_=True, _convert_="all")
    except InstantiationException as error:
        raise _not_a_target(node, error) from error
    try:
        return factory(**runtime)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(
            f"{node._get_full_key(None)}: {node._target_} refuses its values: {reason}. "
            "Change them; HYDRA_FULL_ERROR=1 shows where this came from."
        ) from error


def _not_a_target(node: DictConfig, error: InstantiationException) -> ConfigError:
    """Names the reason, which is the first error of the chain; Hydra's message leaves it out."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    return ConfigError(
        f"{node._get_full_key(None)}._target_={node._target_} cannot be used: {' '.join(str(first).split())}. Expected "
        "the dotted name of a function or class. Run from the folder that contains its module, or install it."
    )


def build_each(nodes: DictConfig) -> list[Any]:
    """Builds the objects of a named dict, in its order; entries set to null are left out."""
    return list(build_named(nodes).values())


def build_named(nodes: DictConfig) -> dict[str, Any]:
    """Builds the objects of a named dict by name; entries set to null are left out."""
    return {str(name): build(node) for name, node in nodes.items() if node is not None}
