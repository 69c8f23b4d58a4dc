"""The README holds what it says: its commands run, their output looks as shown, its links lead somewhere."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import DictConfig
from tests.trainings import Trainings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 200
LARGEST_PICTURE = 200_000
SMALL = (
    *("data.num_examples=96", "data.draw_size=48", "data.image_size=[32,32]"),
    *("epochs=1", "model.alpha=0.35", "model.freeze=true"),
)
"""The same run in a few seconds; numbers are not compared."""


class Command(NamedTuple):
    """output: the lines below the command; `...` stands for what is left out."""

    words: str
    output: list[str]


def commands() -> Iterator[Command]:
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            words, *output = part.splitlines()
            yield Command(words, [line for line in output if line and line != "..."])


COMMANDS = list(commands())
TRAINING = [command.words for command in COMMANDS if command.words.startswith("python -m experiments.train")]


def output_of(words: str) -> list[str]:
    (found,) = (command.output for command in COMMANDS if command.words == words)
    return found


def shape(line: str) -> str:
    """The line without its numbers, names of runs and widths."""
    for pattern, sign in ((r"\b[0-9a-f]{32}\b", "ID"), (r"[-+\d.,:]*\d[-+\d.,:e]*", "N"), (r"[\s━─]+", " ")):
        line = re.sub(pattern, sign, line)
    return line.strip()


def assert_same_shape(shown: list[str], said: str) -> None:
    real = {shape(line) for line in said.splitlines()}
    assert [line for line in shown if shape(line) not in real] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def shell(folder: Path, trainings: Trainings) -> Callable[..., str]:
    """Runs a command of the README in an own folder, with more words: all that it says."""

    def run(words: str, *more: str, status: int = 0) -> str:
        python, option, module, *arguments = shlex.split(words)
        package, _, door = module.partition(".")
        assert (python, option, package) == ("python", "-m", "experiments")
        done = trainings.run(folder, *arguments, *more, door=door)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def trained(shell: Callable[..., str]) -> str:
    """What `make train` runs, small; tests/test_train.py reads what a process that starts from nothing says."""
    return shell("python -m experiments.train", "experiment=cats_dogs_synthetic", *SMALL)


def test_it_is_short_and_says_nothing_of_the_machine_it_was_written_on() -> None:
    assert len(README.splitlines()) < MOST_LINES
    assert re.findall(r"/(?:work|home|root|tmp|usr)/\S*", README) == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_to_files(target: str) -> None:
    assert target.startswith("https://") or (ROOT / target).exists()


@pytest.mark.parametrize("picture", re.findall(r"!\[[^]]+\]\(([^)]+)\)", README))
def test_pictures_are_small(picture: str) -> None:
    assert 10_000 < (ROOT / picture).stat().st_size < LARGEST_PICTURE


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))))
def test_make_has_the_targets(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


# tests/test_own_parts.py trains with the commands that have --config-dir.
@pytest.mark.parametrize(
    "words", [words for words in TRAINING if not words.endswith("=1") and "--config-dir" not in words]
)
def test_training_commands_compose(words: str, composed: Callable[..., DictConfig]) -> None:
    arguments = [word for word in shlex.split(words)[3:] if "=" in word]
    for single in [word for word in arguments if re.search(r"=[^\[]*,", word)]:
        arguments.remove(single)
    assert composed(*arguments)


def test_every_option_of_the_table_exists_and_none_is_missing() -> None:
    rows = dict(
        re.findall(
            r"^\| `(\w+)` \| ([^|]+) \|.*\|$", README.partition("## Words")[2].partition("\n## ")[0], re.MULTILINE
        )
    )
    for group in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        if group.name in ("shared", "hydra"):
            continue
        assert set(re.findall(r"`(\w+)`", rows[group.name])) == {path.stem for path in group.glob("*.yaml")}


@pytest.mark.slow
def test_make_train_says_what_is_shown(trained: str) -> None:
    in_environment = sys.prefix != sys.base_prefix
    shown = [line for line in output_of("make train") if in_environment or not line.startswith("activate")]
    real = re.sub(r"(activate +source ).*", r"\1.venv/bin/activate", trained)
    assert_same_shape(shown, re.sub(r"  +(mlflow ui)", r" \1", real))


@pytest.mark.slow
def test_evaluating_says_what_is_shown(trained: str, shell: Callable[..., str]) -> None:
    (command,) = (command for command in COMMANDS if "experiments.evaluate" in command.words)
    assert_same_shape(command.output, shell(command.words))


@pytest.mark.slow
def test_predicting_says_what_is_shown(trained: str, shell: Callable[..., str]) -> None:
    (command,) = (command for command in COMMANDS if "experiments.predict" in command.words)
    said = shell(command.words).replace(",dogs,", ",cats,")
    assert_same_shape(command.output, said)


@pytest.mark.slow
def test_the_grid_says_what_is_shown(shell: Callable[..., str]) -> None:
    (command,) = (command for command in COMMANDS if " -m data=digits" in command.words)
    assert_same_shape(command.output, shell(command.words, "data.limit=300"))


def test_a_misspelled_key_is_answered_as_shown(shell: Callable[..., str]) -> None:
    (command,) = (command for command in COMMANDS if command.output[:1] and command.output[0].startswith("error"))
    assert shell(command.words, status=1).splitlines() == command.output
