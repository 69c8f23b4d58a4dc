"""Two trainings in one process that alternate every few epochs, so that a busy minute affects both equally."""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import keras
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.config import register
from experiments.config.build import build, build_each
from experiments.config.registry import CONF
from experiments.data import Splits
from experiments.loops.evaluation import build_variables
from experiments.runs import runtime
from experiments.runs.assembly import compile_model

LONGEST_TURN = 100


class Turns(keras.callbacks.Callback):
    """Waits for its turn before every `epochs`-th epoch, and measures each turn."""

    def __init__(self, mine: Semaphore, others: Semaphore, epochs: int) -> None:
        super().__init__()
        self._mine, self._others, self._epochs = mine, others, epochs
        self.settle: Callable[[], None] = lambda: None
        """Waits until this side's work in the background has ended. This time is not measured."""
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        """CPU seconds of this process, in which only this training runs; servers on this machine are not included."""
        self.step_seconds: list[float] = []
        """Seconds of the steps of each turn, without the first step of each epoch. `seconds` has the complete turns."""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        if epoch % self._epochs == 0:
            if not self._mine.acquire(timeout=LONGEST_TURN):
                raise TimeoutError("the other training has stopped")
            self.step_seconds.append(0)
            self._began, self._used = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if batch == 0:
            self._first_step = time.perf_counter()
        elif batch + 1 == self.params["steps"]:
            float((logs or {})["loss"])
            self.step_seconds[-1] += time.perf_counter() - self._first_step

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        if (epoch + 1) % self._epochs == 0:
            self.seconds.append(time.perf_counter() - self._began)
            self.cpu_seconds.append(time.process_time() - self._used)
            self.settle()
            self._others.release()


Training = Callable[[Turns], object]


def take_turns(trainings: Mapping[str, Training], epochs: int) -> dict[str, Turns]:
    first, second = Semaphore(1), Semaphore(0)
    names = list(trainings)
    turns = {names[0]: Turns(first, second, epochs), names[1]: Turns(second, first, epochs)}
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(trainings[name], turns[name]) for name in names]:
            ended.result()
    return turns


def compare(one: str, other: str, seconds: Mapping[str, list[float]]) -> float:
    """Returns the median ratio of neighbouring turns, without the first turn, which includes the tracing."""
    for name in (one, other):
        print(f"  {name}: median {statistics.median(seconds[name][1:]):.4g} s a turn of {len(seconds[name]) - 1}")
    return statistics.median(mine / theirs for mine, theirs in zip(seconds[one][1:], seconds[other][1:], strict=True))


def start() -> None:
    """Configures the process as `experiments.train` does before it builds the model."""
    register()
    runtime.configure(seed=0, precision="float32", deterministic="auto", threads=None, device="auto", strategy="none")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", list(overrides))


def prepared(cfg: DictConfig) -> tuple[keras.Model, Splits]:
    """Returns a compiled model with its variables, and its data."""
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    spec = splits.train.spec
    model = build(cfg.model, input_shape=spec.input_shape, num_classes=spec.num_classes)
    compile_model(cfg, model, splits)
    build_variables(model, splits.validation)
    return model, splits
