"""Fixtures and pytest hooks shared by all tests."""

import gc
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict, read_write
from PIL import Image
from tests.mlflow_server import MlflowServer

if TYPE_CHECKING:
    from tests.trainings import Trainings

from experiments.config import register
from experiments.config.registry import CONF
from experiments.tracking.patience import received

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Shells start background processes with SIGINT ignored, and all processes started by tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Imported modules are never freed. Garbage collections that visit them during the imports take a tenth of all time.
gc.disable()
# Hydra uses PyYAML's Python loader. The loader of libyaml creates the same objects faster.
yaml.SafeLoader = yaml.CSafeLoader
# Selenium installs trio, whose plugin for hypothesis warns if it is loaded late, and warnings are errors here.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs files with slow tests first, so that all test processes are busy until the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Freezes the imported modules and makes full garbage collections ten times rarer than Python's default."""
    gc.freeze()
    gc.set_threshold(700, 10, 100)
    gc.enable()


SERVER = pytest.StashKey[socket.socket]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Forks the server of `trainings` when TensorFlow is imported but not used yet."""
    if any("trainings" in item.fixturenames for item in session.items if isinstance(item, pytest.Function)):
        from tests.killing.server import fork_server

        session.config.stash[SERVER] = fork_server()
    return (yield)


@pytest.fixture(scope="session")
def modules_frozen() -> list[int]:
    """Number of imported modules at each call of `gc.freeze`."""
    return [len(sys.modules)]


@pytest.fixture(autouse=True)
def without_imports_in_collections(modules_frozen: list[int]) -> Iterator[None]:
    """Freezes modules that a test has imported, which garbage collections by Keras would visit each time."""
    yield
    if len(sys.modules) > modules_frozen[-1] + 200:
        gc.collect()
        gc.freeze()
        modules_frozen.append(len(sys.modules))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets a temporary cache folder, so that tests write no packs to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["EXPERIMENTS_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def store_of_its_own() -> Iterator[None]:
    """Removes the store that MLflow remembers and writes to the environment, because the next test would use it."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    # Set by `run_command`; commands that a later test starts would show tracebacks.
    os.environ.pop("HYDRA_FULL_ERROR", None)


@pytest.fixture(autouse=True)
def signals_of_its_own() -> Iterator[None]:
    """Forgets the signals that a test has sent to this process, after which the next test would hardly wait."""
    yield
    received.clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real photos, MNIST and weights; the test is skipped if EXPERIMENTS_REAL_DATA is not set."""
    folder = os.environ.get("EXPERIMENTS_REAL_DATA")
    if not folder:
        pytest.skip("EXPERIMENTS_REAL_DATA does not name a folder with cats_dogs/, mnist/ and weights/")
    return Path(folder)


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Returns a function that composes the config of the training command from overrides.

    Each selection of options is composed once; values are set in a copy of it, as Hydra does.
    """
    register()
    parser = OverridesParser.create()

    @cache
    def options(*overrides: str) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose("config", overrides=list(overrides), return_hydra_config=True)

    def composed(*overrides: str) -> DictConfig:
        chosen = [override for override in overrides if _selects_option(override)]
        cfg = deepcopy(options(*chosen))
        values = parser.parse_overrides([override for override in overrides if override not in chosen])
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        with read_write(cfg.hydra):
            cfg.hydra.overrides.task = list(overrides)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg

    return composed


def _selects_option(override: str) -> bool:
    """Returns True if the override selects an option of a config group, or belongs to Hydra's own config."""
    key = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return key.startswith("hydra") or Path(CONF, key).is_dir()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def unused_port() -> int:
    """Port on which nothing listens."""
    return _free_port()


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Path, trainings: "Trainings"
) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"), _free_port(), empty_store, trainings)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQLite store to copy, created once for all processes of pytest, because MLflow needs seconds for its tables."""
    from experiments.tracking.mlflow_store import open_store

    folder = tmp_path_factory.getbasetemp()
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "store" / "mlflow.db"
    open_store(f"sqlite:///{path}")  # lets only one process at a time create the tables
    return path


@pytest.fixture(scope="session")
def trainings(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, empty_store: Path
) -> "Iterator[Trainings]":
    from tests.trainings import Trainings  # imports TensorFlow, which most tests do not need

    folder = tmp_path_factory.mktemp("trainings")
    shutil.copy(empty_store, folder)
    with pytestconfig.stash[SERVER] as server:
        trainings = Trainings(server, folder)
        yield trainings
        trainings.close()


COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (220, 30, 30)}
Door = Callable[..., str]


class FinishedRun(NamedTuple):
    """A finished run. `store` is its tracking address; `photos` has train/ and valid/ with one folder per colour."""

    run_id: str
    store: str
    photos: Path


def paint(root: Path, count: int, colours: Mapping[str, tuple[int, int, int]] = COLOURS, height: int = 18) -> Path:
    """Writes `count` PNG files of slightly different shades per colour, in one folder per colour."""
    for name, colour in colours.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            shade = tuple(channel - number for channel in colour)
            Image.new("RGB", (20, height), shade).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, composed: Callable[..., DictConfig], empty_store: Path
) -> FinishedRun:
    """A small run on painted images. Its run folder is removed, as if the run had trained on another machine."""
    from experiments.runs.run import run

    folder = tmp_path_factory.mktemp("finished")
    photos = folder / "photos"
    paint(photos / "train", 12)
    # The height differs, because an image that occurs in two splits is an error.
    paint(photos / "valid", 4, height=19)
    store = f"sqlite:///{shutil.copy(empty_store, folder)}"
    overrides = ["data=image_folder", f"data.path={photos}", "data.image_size=[16,16]", "data.batch_size=8", "epochs=8"]
    overrides += ["checkpoint.every_epoch=true"]
    cfg = composed(
        *overrides, "model=mlp", "optimizer.learning_rate=0.003", "progress=none", f"logging.tracking_uri={store}"
    )
    output = folder / "output"
    output.mkdir()
    run_id = run(cfg, output).run_id
    assert run_id is not None
    shutil.rmtree(output)
    return FinishedRun(run_id, store, photos)


@pytest.fixture
def damaged_best(finished_run: FinishedRun) -> Iterator[str]:
    """Name of a file of the run's best weights, in which one bit is flipped during the test."""
    from mlflow import MlflowClient

    artifacts = urlsplit(MlflowClient(finished_run.store).get_run(finished_run.run_id).info.artifact_uri).path
    (file,) = Path(artifacts, "checkpoints", "best").glob("best-*.data-*")
    before = file.read_bytes()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    yield file.name
    file.write_bytes(before)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Door:
    """Returns a function that runs a command of the package in this process and returns its output.

    The working folder is empty. The arguments are the name of the command and overrides.
    """

    def call(name: str, *overrides: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *overrides, "hydra/job_logging=none", "hydra/hydra_logging=none"])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        import_module(f"experiments.{name}").main()
        return capsys.readouterr().out

    return call
