"""Hooks of MkDocs: generated configuration keys, links to files outside of docs/, and labels of table cells."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from experiments.config import register
from experiments.config.reference import Key, Section, sections
from experiments.config.registry import COMMANDS, CONF
from experiments.config.registry import GROUPS as TYPED_GROUPS

REFERENCE = "reference/configuration.md"
GROUPS, KEYS = "<!-- generated: groups -->", "<!-- generated: keys -->"
NOTEBOOK = re.compile(r"<!-- generated: cells of (\S+) -->")
COLOR = re.compile(r"\x1b\[[\d;]*m")
STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
LONG_NAME = re.compile(r"<code>[^<]{20,}</code>")
BREAK = re.compile(r"(?<=\w)(?:_+|\.|::)(?=[A-Za-z])")
"""Place in a name after which a line may break. Numbers such as 0.1 are left in one piece."""
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    if page.file.src_uri == REFERENCE:
        markdown = markdown.replace(GROUPS, "\n".join(groups())).replace(KEYS, "\n\n".join(keys()))
    folder, docs = Path(config.docs_dir, page.file.src_uri).parent, Path(config.docs_dir)
    markdown = NOTEBOOK.sub(lambda found: "\n\n".join(cells(folder / found[1])), markdown)
    return LINK.sub(lambda link: _within_site(link, folder, docs), markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    return TABLE.sub(lambda table: _breakable(_labelled(table.group())), html)


def _breakable(table: str) -> str:
    """Returns the table with `<wbr>` in long names, so that browsers break them only between their parts."""
    return LONG_NAME.sub(lambda code: BREAK.sub(r"\g<0><wbr>", code.group()), table)


def _labelled(table: str) -> str:
    """Returns the table with the title of its column as `data-label` of each cell; styles.css shows it on phones."""
    titles = [re.sub(r"<[^>]+>", "", title) for title in re.findall(r"<th[^>]*>(.*?)</th>", table)]

    def row(found: re.Match[str]) -> str:
        titles_left = iter(titles)
        return re.sub(r"<td", lambda _: f'<td data-label="{next(titles_left)}"', found.group())

    return re.sub(r"<tr>.*?</tr>", row, table, flags=re.DOTALL)


def _within_site(link: re.Match[str], folder: Path, docs: Path) -> str:
    """Returns the link, or only its text if it leads to a file of the repository outside the site.

    Raises PluginError if there is no such file.
    """
    target = (folder / link["path"]).resolve()
    if target.is_relative_to(docs):
        return link.group()
    if not target.exists():
        raise PluginError(f"{link.group()} in {folder.relative_to(docs.parent)}/ leads to no file of the repository")
    return link["text"] if "`" in link["text"] else f"`{link['text']}`"


def cells(notebook: Path) -> Iterator[str]:
    """Yields Markdown for each cell of an executed notebook and for its outputs."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", ()):
            data = {
                kind: "".join(text) for kind, text in output.get("data", {"text/plain": output.get("text")}).items()
            }
            html = re.sub(r"\n\s*", "", STYLE.sub("", data.get("text/html", "")))
            text = COLOR.sub("", data["text/plain"]).strip("\n")
            if html or text:
                yield f'<div class="output">{html}</div>' if html else f"```text\n{text}\n```"


def groups() -> Iterator[str]:
    """Yields a Markdown list item for each config group and its options."""
    for folder in sorted(path for path in Path(CONF).iterdir() if path.is_dir()):
        options = [f"`{path.stem}`" for path in sorted(folder.glob("*.yaml"))]
        if options and folder.name not in ("shared", "hydra"):
            group = f"[`{folder.name}`](#{folder.name})" if folder.name in TYPED_GROUPS else f"`{folder.name}`"
            yield f"- {group}: {', '.join(options)}"


def keys() -> Iterator[str]:
    """Yields Markdown for each section and key. Anchors are names of keys, as `evaluate.run_id` for other commands."""
    register()
    described: set[str] = set()
    for section in sections():
        yield from _title(section)
        prefix = f"{section.title}." if section.title in COMMANDS and section.title != "train" else ""
        for key in section.keys:
            if key.name.endswith("_target_") or key.name in described:
                continue
            described |= set() if prefix else {key.name}
            yield f"### `{key.name}` {{ #{prefix}{key.name} }}"
            yield f"{key.description}  \n{' · '.join(_facts(key, section))}"
        known = [f"[`{key.name}`](#{key.name})" for key in section.keys if prefix and key.name in described]
        if known:
            yield f"As in `train`: {', '.join(known)}."


def _title(section: Section) -> Iterator[str]:
    if section.title in TYPED_GROUPS:
        yield f"## Group `{section.title}` {{ #{section.title} }}"
    elif section.title in COMMANDS:
        yield f"## Command `{section.title}` {{ #{section.title} }}"
    else:
        yield f"## `{section.title}` {{ #{section.title} }}"
    yield section.description
    if section.options:
        rows = [f"| `{option}` | {text} |" for option, text in section.options.items() if text]
        yield "\n".join(["| Option | Description |", "|---|---|", *rows])


def _facts(key: Key, section: Section) -> Iterator[str]:
    yield f"`{key.type}`" if key.type != "option" else "an option of the group"
    if key.expected:
        yield key.expected
    if len(key.defaults) == 1:
        yield f"default `{key.default}`"
    else:
        yield "default " + ", ".join(f"`{text}` ({', '.join(options)})" for text, options in key.defaults.items())
    if key.options and len(key.defaults) == 1 and len(key.options) < len(section.options) and key.name.count(".") == 1:
        yield f"options {', '.join(key.options)}"
