"""Documentation: each block is of a tested kind, and named tests, keys, targets and packages exist."""

import ast
import difflib
import re
from collections.abc import Iterator
from functools import cache

import pytest
import yaml  # type: ignore[import-untyped]
from tests.docs.blocks import (
    BLOCKS,
    COMMANDS,
    MAKEFILE,
    NODES,
    NOT_EXECUTED,
    PAGES,
    PROJECT,
    ROOT,
    Block,
    keys,
    of_language,
    part_of_project,
    problems,
    text_of,
)
from tests.test_imports import ALLOWED

from experiments.config.registry import GROUPS


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


@pytest.mark.parametrize("block", [block for block in BLOCKS if part_of_project(block)], ids=str)
def test_block_of_the_example_project_is_verbatim(block: Block) -> None:
    name = part_of_project(block)
    assert name
    assert block.text.partition("\n")[2] in (PROJECT / name).read_text(encoding="utf-8")


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


def named_keys(page: str) -> Iterator[str]:
    """Yields each `KEY` and `KEY=VALUE` in inline code."""
    text = text_of(page)
    if page == "docs/tutorial-map.md":
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)  # the first column contains code of the tutorial
    for token in " ".join(re.findall(r"`([^`\n]+)`", text)).split():
        found = re.fullmatch(r"\+?([a-z_]+\.[a-z0-9_.]*[a-z0-9_])(?:=.*)?", token)
        if (
            found
            and found[1].partition(".")[0] in (*GROUPS, *NODES)
            and not found[1].endswith((".py", ".yaml", ".csv"))
        ):
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
    allowed = {
        name: others for name, others in ALLOWED.items() if name not in (*COMMANDS, "__main__", "__init__", "api")
    }
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
