"""Reads the code blocks and the commands of README, CONTRIBUTING and docs/."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from experiments.config import register
from experiments.config.reference import sections

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "tests" / "example_project"
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
COMMANDS = ("train", "evaluate", "predict", "compare", "inspect", "doctor")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NOT_EXECUTED = "not executed by the tests"
"""Stands in the paragraph above each block of commands that the tests cannot run."""
READS_ONLY = ("--help", "--hydra-help", "--cfg", "--version")


class Block(NamedTuple):
    """A fenced code block. `above` is the paragraph before it."""

    page: str
    line: int
    language: str
    text: str
    above: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A line after `$ ` of a console block and the output lines below it, without those that are `...`.

    A line that ends in a backslash is continued, as in a shell.
    """

    block: Block
    folder: str
    text: str
    output: list[str]

    def __str__(self) -> str:
        return f"{self.block.page} {self.text}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def module(self) -> str:
        """Module of the package that the command runs: a name of COMMANDS or `__main__`; empty for other programs."""
        return next(iter(self._module_and_arguments()), "")

    @property
    def arguments(self) -> list[str]:
        return self._module_and_arguments()[1:]

    def _module_and_arguments(self) -> list[str]:
        match self.words:
            case ["eval", "$(experiments completion)"]:
                return ["__main__", "completion"]
            case ["experiments", "note", run, text]:
                return ["compare", f"runs=[{run}]", f"note={text}"]
            case ["experiments", name, *rest]:
                return [name, *rest] if name in COMMANDS else ["__main__", name, *rest]
            case ["python", "-m", name, *rest] if name.removeprefix("experiments.") in COMMANDS:
                return [name.removeprefix("experiments."), *rest]
            case _:
                return []

    @property
    def target(self) -> str:
        """Target of `make`; empty for other programs."""
        return self.words[1] if self.words[0] == "make" else ""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        above = text[: found.start()].rstrip().rpartition("\n\n")[2]
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], textwrap.dedent(found[3]), above)


def commands(block: Block) -> Iterator[Command]:
    folder = "."
    joined = re.sub(r" *\\\n *", " ", block.text)
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        text, *output = part.splitlines()
        yield Command(block, folder, text, [line for line in output if line and line != "..."])
        folder = text.removeprefix("cd ") if text.startswith("cd ") else folder


BLOCKS = [block for page in PAGES for block in blocks(page, text_of(page))]
CONSOLE = [command for block in BLOCKS if block.language == "console" for command in commands(block)]
IN_PROJECT = [command for command in CONSOLE if command.module and "--config-dir" in command.arguments]
"""Commands that use the example project."""
NODES = ("monitor", "checkpoint", "tensorboard", "runtime", "sweep")


def shape(line: str) -> str:
    """The line without its numbers, ids, widths and predicted classes."""
    for pattern, sign in (
        (r"\b[0-9a-f]{32}\b", "ID"),
        (r"[-+\d.,:]*\d[-+\d.,:e]*", "N"),
        (r"[\s━─]+", " "),
        (r",(cats|dogs),", ",CLASS,"),
    ):
        line = re.sub(pattern, sign, line)
    return line.strip()


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def is_understood(command: Command) -> bool:
    if command.text.startswith("cd "):
        return (ROOT / command.text.removeprefix("cd ")).is_dir()
    if command.target:
        return f"\n{command.target}:" in MAKEFILE
    return bool(command.module) or command.text == "source .venv/bin/activate"


def problems(page: str, text: str) -> Iterator[str]:
    """Yields what the tests of this file would not cover."""
    found = list(blocks(page, text))
    for block in found:
        above = " ".join(block.above.split())
        if block.language not in ("console", "python", "yaml", "text"):
            yield f"{block}: unknown kind of block '{block.language}'"
        elif block.language == "console":
            yield from (f"{block}: unknown command {each.text}" for each in commands(block) if not is_understood(each))
            if not block.text.startswith("$ "):
                yield f"{block}: a console block starts with a command"
        elif (
            block.language == "text" and re.search(r"^(\$ |#!)", block.text, re.MULTILINE) and NOT_EXECUTED not in above
        ):
            yield f"{block}: the paragraph above does not contain '{NOT_EXECUTED}'"
    if text.count("```") != 2 * len(found):
        yield f"{page}: a fence that starts or ends no block"
    if re.search(r"\n\n {4,}[^\s*-]", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        yield f"{page}: indented code"


def part_of_project(block: Block) -> str | None:
    """Path below the example project that the first line of the block names."""
    first = block.text.partition("\n")[0].removeprefix("# ")
    return first if (PROJECT / first).is_file() else None


@cache
def keys() -> frozenset[str]:
    """Returns the keys of `train`, of all groups and of the other commands."""
    register()
    return frozenset(key.name for section in sections() for key in section.keys if key.type != "option")
