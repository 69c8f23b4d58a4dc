"""Fixtures shared by every test."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from experiments.config import register
from experiments.doors import CONF

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So that no test leaves packs in the cache of the person who runs it."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EXPERIMENTS_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos, MNIST and weights that EXPERIMENTS_REAL_DATA names."""
    folder = os.environ.get("EXPERIMENTS_REAL_DATA")
    if not folder:
        pytest.skip("EXPERIMENTS_REAL_DATA does not name a folder with cats_dogs/, mnist/ and weights/")
    return Path(folder)


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """What the training command composes from these words, `key=value` each."""
    register()

    def compose_words(*words: str) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("config", overrides=list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    return compose_words
