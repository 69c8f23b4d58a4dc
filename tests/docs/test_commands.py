"""Documentation: commands compose or run, and their output looks as shown."""

import ast
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from tests.docs.blocks import (
    CONSOLE,
    IN_PROJECT,
    PROJECT,
    READS_ONLY,
    ROOT,
    Block,
    Command,
    of_language,
    part_of_project,
    shape,
)
from tests.trainings import Trainings

from experiments.cli.arguments import rewritten
from experiments.config import check, check_values
from experiments.config.registry import CONF
from experiments.sweeps.search_space import Dimension, dimensions

SMALL = (
    *("data.num_examples=96", "data.draw_size=48", "data.image_size=[32,32]"),
    *("epochs=1", "model.alpha=0.35", "model.freeze=true"),
)
"""Reduce `make train` to a few seconds; numbers are not compared."""
FEW_DIGITS = (
    *("data.limit=300", "logging.log_model=false", "logging.log_figures=false", "tensorboard.graph=false"),
    "tensorboard.images=0",
)
"""Shorten the jobs of a sweep."""


OURS = list({command.text: command for command in CONSOLE if command.module}.values())
"""Commands of the package, each once."""
SHOWN = [command for command in CONSOLE if command.output]
READING = [
    command
    for command in OURS
    if command.module == "__main__" or any(word.startswith(READS_ONLY) for word in command.arguments)
]
FAILING = {command.text for command in SHOWN if command.output[0].startswith("error: ")}
COMPOSED = [command for command in OURS if command not in (*IN_PROJECT, *READING) and command.text not in FAILING]


@pytest.mark.parametrize("command", COMPOSED, ids=str)
def test_command_composes(command: Command, composed: Callable[..., DictConfig]) -> None:
    arguments = [f"{word}=true" if word in ("sync", "prune") else word for word in command.arguments]
    if "-m" not in arguments:
        arguments = rewritten(arguments, command.module)
    assert {word for word in arguments if word.startswith("-")} <= {"-m"}
    for overrides in combinations([word for word in arguments if word != "-m"]):
        if command.module == "train":
            check(composed(*overrides))
        else:
            composed()  # registers the schemas
            with initialize_config_dir(CONF, version_base="1.3"):
                check_values(compose(command.module, overrides))


def combinations(arguments: list[str]) -> Iterator[list[str]]:
    """Yields the overrides of a single run for each value of each swept key, the other keys at their first value."""
    parsed = OverridesParser.create().parse_overrides(arguments)
    fixed = [word for word, each in zip(arguments, parsed, strict=True) if not each.is_sweep_override()]
    space = [values_of(dimension) for dimension in dimensions(parsed, [])]
    for number, values in enumerate(space):
        for value in values:
            yield [*fixed, *(value if number == other else each[0] for other, each in enumerate(space))]
    if not space:
        yield fixed


def values_of(dimension: Dimension) -> list[str]:
    if dimension.interval is not None:
        return [f"{dimension.name}={dimension.interval.start}", f"{dimension.name}={dimension.interval.end}"]
    return [choice[0] for choice in dimension.choices]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working folder of `make train` and of the commands that read its run."""
    return tmp_path_factory.mktemp("docs")


@pytest.fixture(scope="module")
def execute(trainings: Trainings) -> Callable[..., str]:
    """Runs a module of the package in a folder and returns its standard output and error."""

    def execute(module: str, folder: Path, *arguments: str, status: int = 0) -> str:
        done = trainings.run(folder, *arguments, door=module)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    return execute


@pytest.fixture(scope="module")
def trained(execute: Callable[..., str], folder: Path) -> str:
    """Output of what `make train` runs, reduced; tests/test_train.py starts a new process."""
    return execute("train", folder, "experiment=cats_dogs_synthetic", *SMALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("command", IN_PROJECT, ids=str)
def test_command_with_custom_components_composes(command: Command, project: Path, execute: Callable[..., str]) -> None:
    """tests/test_own_parts.py trains with them."""
    assert ROOT / command.folder == PROJECT
    assert "_target_: own_parts.stripes" in execute(command.module, project, *command.arguments, "--cfg", "job")


@pytest.mark.parametrize("command", READING, ids=str)
def test_command_that_reads_only_runs(command: Command, tmp_path: Path, execute: Callable[..., str]) -> None:
    assert execute(command.module, tmp_path, *command.arguments)


@pytest.fixture(scope="module")
def printed(
    execute: Callable[..., str], trained: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Returns the output of a shown command, which is executed once for all pages."""

    @cache
    def printed(text: str) -> str:
        command = next(command for command in SHOWN if command.text == text)
        if text == "make train":
            return trained
        if command.module in ("evaluate", "predict"):
            return execute(command.module, folder, *command.arguments)
        small = FEW_DIGITS if "-m" in command.arguments else ()
        elsewhere = tmp_path_factory.mktemp("command")
        return execute(command.module, elsewhere, *command.arguments, *small, status=1 if text in FAILING else 0)

    return printed


@pytest.mark.slow
@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_output_has_the_shown_shape(command: Command, printed: Callable[[str], str]) -> None:
    real = printed(command.text)
    if command.text in FAILING:
        assert real.splitlines() == command.output
        return
    in_environment = sys.prefix != sys.base_prefix
    shown = [line for line in command.output if in_environment or not line.startswith("activate")]
    real = re.sub(r"(activate +source ).*", r"\1.venv/bin/activate", real)
    assert missing(shown, re.sub(r"  +(mlflow ui)", r" \1", real)) == []


def missing(shown: list[str], output: str) -> list[str]:
    """Shown lines whose shape is not in the output."""
    real = {shape(line) for line in output.splitlines()}
    return [line for line in shown if shape(line) not in real]


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in of_language("python") if not part_of_project(block)], ids=str)
def test_python_block_runs(block: Block, folder: Path, trained: str, trainings: Trainings) -> None:
    (run_id,) = re.findall(r"^run id +(\w+)", trained, re.MULTILINE)
    source = re.sub(r"\b[0-9a-f]{32}\b", run_id, block.text)
    with trainings.calling(run_block, source, str(folder), block.page == "docs/tutorial-map.md") as process:
        assert process.wait() == 0, process.stderr


def run_block(source: str, folder: str, tutorial: bool) -> None:
    """Executes each statement; one with the comment `# wrong` may raise."""
    os.chdir(folder)
    names: dict[str, Any] = tutorial_names() if tutorial else {}
    for statement in ast.parse(source).body:
        wrong = "# wrong" in source.splitlines()[statement.lineno - 1]
        with suppress(Exception) if wrong else nullcontext():
            exec(compile(ast.Module([statement], []), "block", "exec"), names)


def tutorial_names() -> dict[str, Any]:
    """Names that the snippets of the tutorial map use."""
    import keras
    import tensorflow as tf

    def batches(epoch: int, count: int = 2) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        yield from [(x, y)] * count

    x, y = tf.random.uniform([4, 3]), tf.constant([0, 1, 2, 0])
    model = keras.Sequential([keras.layers.Dense(3)])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss_fn)
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True))
    images = tf.data.Dataset.from_tensors(tf.zeros([4, 4, 3]))
    return {
        **{"keras": keras, "tf": tf, "Dense": keras.layers.Dense, "x": x, "y": y, "model": model, "loss_fn": loss_fn},
        **{"SparseCategoricalCrossentropy": keras.losses.SparseCategoricalCrossentropy, "tape": tape, "loss": loss},
        **{"dataset": images, "decode": lambda image: image, "epochs": 2, "batches": batches},
        "numbered": images.map(lambda image: (image, 0.25)),
        "generator": batches(0, count=99),
    }
