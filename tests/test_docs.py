"""Documentation: commands and code blocks run, their output looks as shown, names exist, and the site builds."""

import ast
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from tests.test_imports import ALLOWED
from tests.trainings import Trainings

from experiments.config import check, check_values, register
from experiments.config.reference import sections
from experiments.config.registry import CONF, GROUPS
from experiments.sweeps.search_space import Dimension, dimensions

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "tests" / "example_project"
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
COMMANDS = ("train", "evaluate", "predict", "inspect", "doctor")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NOT_EXECUTED = "not executed by the tests"
"""Stands in the paragraph above each block of commands that the tests cannot run."""
READS_ONLY = ("--help", "--hydra-help", "--cfg", "--version")
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
LONGEST_BUILD_SECONDS = 60
PHONE_WIDTH = 390


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
    """A line after `$ ` of a console block and the output lines below it, without those that are `...`."""

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
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        text, *output = part.splitlines()
        yield Command(block, folder, text, [line for line in output if line and line != "..."])
        folder = text.removeprefix("cd ") if text.startswith("cd ") else folder


BLOCKS = [block for page in PAGES for block in blocks(page, text_of(page))]
CONSOLE = [command for block in BLOCKS if block.language == "console" for command in commands(block)]
NODES = ("monitor", "checkpoint", "tensorboard", "runtime", "sweep")


OURS = list({command.text: command for command in CONSOLE if command.module}.values())
"""Commands of the package, each once."""
IN_PROJECT = [command for command in OURS if "--config-dir" in command.arguments]
SHOWN = [command for command in CONSOLE if command.output]
READING = [
    command
    for command in OURS
    if command.module == "__main__" or any(word.startswith(READS_ONLY) for word in command.arguments)
]
FAILING = {command.text for command in SHOWN if command.output[0].startswith("error: ")}
COMPOSED = [command for command in OURS if command not in (*IN_PROJECT, *READING) and command.text not in FAILING]


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


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_of_a_tested_kind(page: str) -> None:
    assert list(problems(page, text_of(page))) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```bash\nls\n```", "page:1: unknown kind of block 'bash'"),
        ("```\nls\n```", "page:1: unknown kind of block ''"),
        ("```console\n$ ls\n```", "page:1: unknown command ls"),
        ("```console\n$ experiments train\n$ make nothing\n```", "page:1: unknown command make nothing"),
        ("```console\nls\n```", "page:1: a console block starts with a command"),
        ("Run:\n\n```text\n$ ls\n```", f"page:3: the paragraph above does not contain '{NOT_EXECUTED}'"),
        ("```python\nimport os\n", "page: a fence that starts or ends no block"),
        ("Run:\n\n    ls\n", "page: indented code"),
    ],
)
def test_block_of_an_untested_kind_is_reported(text: str, problem: str) -> None:
    assert list(problems("page", text)) == [problem]


@pytest.mark.parametrize("target", sorted({*re.findall(r"`make ([a-z-]+)", "".join(map(text_of, PAGES)))}))
def test_named_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("command", COMPOSED, ids=str)
def test_command_composes(command: Command, composed: Callable[..., DictConfig]) -> None:
    arguments = [f"{word}=true" if word in ("sync", "prune") else word for word in command.arguments]
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


def part_of_project(block: Block) -> str | None:
    """Path below the example project that the first line of the block names."""
    first = block.text.partition("\n")[0].removeprefix("# ")
    return first if (PROJECT / first).is_file() else None


@pytest.mark.parametrize("block", [block for block in BLOCKS if part_of_project(block)], ids=str)
def test_block_of_the_example_project_is_verbatim(block: Block) -> None:
    name = part_of_project(block)
    assert name
    assert block.text.partition("\n")[2] in (PROJECT / name).read_text(encoding="utf-8")


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


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_yaml_block_is_part_of_the_example_project(block: Block) -> None:
    assert yaml.safe_load(block.text)
    assert part_of_project(block)


@cache
def functions_of(path: str) -> list[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


NAMED_TESTS = sorted({found for page in PAGES for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(page))})


def test_each_guarantee_names_a_test() -> None:
    rows = [line for line in text_of("docs/guarantees.md").splitlines() if line.startswith("|")]
    guarantees = [line for line in rows if not line.startswith(("| Guarantee |", "|---"))]
    assert len(guarantees) > 20
    assert [line for line in guarantees if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", line)] == []


@pytest.mark.parametrize(("path", "name"), NAMED_TESTS, ids=str)
def test_named_test_exists(path: str, name: str) -> None:
    names = functions_of(path)
    assert name in names, f"similar tests of {path}: {difflib.get_close_matches(name, names, cutoff=0.3)}"


@cache
def keys() -> frozenset[str]:
    """Returns the keys of `train`, of all groups and of the other commands."""
    register()
    return frozenset(key.name for section in sections() for key in section.keys)


def named_keys(page: str) -> Iterator[str]:
    """Yields each `KEY` and `KEY=VALUE` in inline code."""
    text = text_of(page)
    if page == "docs/tutorial-map.md":
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)  # the first column contains code of the tutorial
    for token in " ".join(re.findall(r"`([^`\n]+)`", text)).split():
        found = re.fullmatch(r"\+?([a-z_]+\.[a-z0-9_.]*[a-z0-9_])(?:=.*)?", token)
        if found and found[1].partition(".")[0] in (*GROUPS, *NODES) and not found[1].endswith((".py", ".yaml")):
            yield found[1]


@pytest.mark.parametrize("page", PAGES)
def test_named_keys_exist(page: str) -> None:
    """`logging.tags.purpose` and `callbacks.early_stopping` are a key of a dict and a part of a key."""
    unknown = [
        name
        for name in named_keys(page)
        if not any(f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.") for key in keys())
    ]
    assert unknown == []


def test_picture_of_packages_shows_the_tested_imports() -> None:
    """Each arrow is an allowed import that no longer path of arrows implies, and none is missing."""
    picture = text_of("docs/images/packages.svg")
    shown = set(re.findall(r'data-edge="(\w+) (\w+)"', picture))
    allowed = {name: others for name, others in ALLOWED.items() if name not in (*COMMANDS, "__main__", "__init__")}
    allowed["commands"] = set().union(*(ALLOWED[name] for name in COMMANDS))
    assert shown == set(reduced(allowed))
    assert set(re.findall(r'class="title middle"[^>]*>(\w+)<', picture)) == set(allowed)


def reduced(allowed: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Edges of a graph without those that a longer path implies."""
    for name, others in allowed.items():
        yield from (
            (name, other) for other in others if not any(reaches(allowed, via, other) for via in others - {other})
        )


def reaches(allowed: dict[str, set[str]], start: str, end: str) -> bool:
    return end in allowed[start] or any(reaches(allowed, via, end) for via in allowed[start])


def build_site(folder: Path, config: Path = ROOT / "mkdocs.yml") -> tuple[int, str]:
    """Builds a site as `make docs` does, without network access, and returns exit status and output."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(folder),
    ]
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_BUILD_SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    status, output = build_site(folder)
    assert status == 0, output
    return folder


def test_make_docs_builds_in_strict_mode() -> None:
    (options,) = re.findall(r"mkdocs build (.*)", MAKEFILE)
    assert options == "--strict"  # with --quiet, warnings are not counted


@pytest.mark.slow
def test_broken_links_stop_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    links = ("nothing.md", "#nothing", "/index.html", "none.svg", "other.md#nothing")
    (tmp_path / "docs" / "index.md").write_text("\n\n".join(f"[link]({link})" for link in links))
    (tmp_path / "docs" / "other.md").write_text("# Other")
    config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "docs", "hooks": [], "nav": [{"Home": "index.md"}]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    status, output = build_site(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert status == 1
    assert "Aborted with 6 warnings in strict mode!" in output, output  # also: other.md is not in the navigation


class References(HTMLParser):
    """Addresses that a page loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {str(found["id"])} if "id" in found else set()
        address = found.get("href") if tag == "link" else found.get("src") or found.get("srcset")
        self.loaded += [address] if address else []


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    loaded = {address for page in pages for address in References(page).loaded}
    assert len(pages) >= len(PAGES) - 2
    assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles) == []


@pytest.mark.slow
def test_site_lists_each_key_and_each_option(site: Path) -> None:
    page = site / "reference" / "configuration.html"
    listed = {key for key in keys() if not key.endswith("_target_")}
    commands = {name.partition(".")[2] for name in References(page).anchors if name.partition(".")[0] in COMMANDS}
    assert sorted(listed - References(page).anchors - commands) == []
    text = page.read_text(encoding="utf-8")
    options = {path.stem for path in Path(CONF).glob("*/*.yaml") if path.parent.name != "shared"}
    assert [option for option in sorted(options) if f"<code>{option}</code>" not in text] == []


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs a browser: install chromium and chromium-driver",
)
def test_no_page_scrolls_sideways_on_a_phone(site: Path, tmp_path: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    size = {"width": PHONE_WIDTH, "height": 800, "pixelRatio": 1.0}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": size})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        wide: dict[str, int] = {}
        for page in sorted(site.rglob("*.html")):
            driver.get(page.as_uri())
            width = driver.execute_script("return document.documentElement.scrollWidth")
            wide |= {page.name: width} if width > PHONE_WIDTH else {}
        assert wide == {}
    finally:
        driver.quit()
