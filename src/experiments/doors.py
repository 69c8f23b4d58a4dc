"""What every command shares: where `conf/` is, and errors shown as one line with exit status 1."""

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.errors import ExperimentError, near

PACKAGED = Path(__file__).parent / "conf"
CONF = str(PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "conf")
"""Inside the package when installed from a wheel, at the top of the checkout otherwise."""
UNWRITABLE = (PermissionError, NotADirectoryError, FileExistsError)


TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""What the person asked for, before `enter` takes the variable over."""


def enter(main: Callable[[], object], config_name: str) -> None:
    """Runs a Hydra main; HYDRA_FULL_ERROR=1 shows tracebacks instead of one line."""
    # TensorFlow greets with pages of notes about the machine; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # MLflow reports its own use over the network otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Hydra would print its own report and exit; with this it raises, and the nearest key can be named.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (HydraException, OmegaConfBaseException, *UNWRITABLE) as error:
        _fail(error, config_name)


def job(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wraps what Hydra calls: an error ends a single run here, as Hydra would add a line; a sweep goes on."""

    @wraps(main)
    def wrapped(cfg: DictConfig) -> Any:
        try:
            return main(cfg)
        except ExperimentError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            _fail(error)

    return wrapped


def _fail(error: Exception, config_name: str = "config") -> NoReturn:
    if TRACEBACKS:
        raise error
    sys.exit(f"error: {one_line(error, config_name)}")


def one_line(error: Exception, config_name: str) -> str:
    if isinstance(error, UNWRITABLE):
        return (
            f"{error.filename}: {error.strerror}. Expected a file or folder this user can write. "
            "Set hydra.run.dir=FOLDER for the output, or HYDRA_FULL_ERROR=1 to see where this came from."
        )
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option} is not an option. {near(option, error.options)}"
    found = re.search(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and found:
        return f"{_words(error)} {near(found[1], _keys(composed_keys(config_name)))}"
    return _words(error)


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not re.match(r"(full_key|object_type|reference_type)[:=]", line))


def composed_keys(config_name: str) -> dict[str, Any]:
    """The default config with the groups that the command line chooses, for the names it has."""
    chosen = [word for word in sys.argv[1:] if re.fullmatch(r"[a-z]+=[\w,\[\]]+", word)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        try:
            cfg = compose(config_name, chosen)
        except HydraException:
            cfg = compose(config_name)
    return cast(dict[str, Any], OmegaConf.to_container(cfg))


def _keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        keys += [f"{prefix}{key}", *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return keys
