"""Docstrings begin with a verb or with the returned noun, and texts avoid words that have a plainer equivalent."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ODD = {"What", "Where", "Of", "As", "Whether", "Those", "Which", "How", "One", "None", "For", "That"}
AVOIDED = re.compile(r"\b(anew|meanwhile|goes on with|takes away|by now|a person)\b", re.IGNORECASE)


def docstrings() -> Iterator[tuple[Path, str]]:
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                yield file, text


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    assert [f"{file}: {text}" for file, text in docstrings() if text.split()[0].strip(",.:") in ODD] == []


def test_texts_avoid_words_with_a_plainer_equivalent() -> None:
    files = [
        file
        for folder in ("src", "conf", "docs")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".md", ".svg", ".html")
    ]
    texts = {file: file.read_text(encoding="utf-8") for file in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]}
    assert {file: words for file, text in texts.items() if (words := AVOIDED.findall(text))} == {}
