"""Descriptions as Markdown: hostile text stays text, and the end of a run replaces only an earlier end."""

import html
import re

import markdown  # type: ignore[import-untyped]
import pytest

from experiments.tracking.notes import LONGEST, LONGEST_BLOCK, LONGEST_LINE, code, with_end

HOSTILE = [
    "plain",
    "a `b` c",
    "``` x",
    "`",
    "</code></pre><script>alert(1)</script>",
    "[click](javascript:alert(1)) ![x](http://a/b.png)",
    "**bold** _x_ # h | a | b | \\",
    "a\n\n# heading\n- list",
    "😀 \x1b[31mred\x1b[0m",
    "x" * 10_000,
    "`" * 400,
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("block", [False, True])
def test_code_shows_text_literally(text: str, block: bool) -> None:
    """Rendered by another implementation of Markdown."""
    longest, expected = (LONGEST_BLOCK, text) if block else (LONGEST_LINE, " ".join(text.split()))
    expected = expected if len(expected) <= longest else f"{expected[:longest]} ... (cut)"
    found = code(text, block=block)
    assert expected in found
    assert len(found) < longest + 2 * longest + 100
    if not expected.strip("` "):  # Markdown has no code of backticks only
        return
    page = markdown.markdown(f"before\n\n{found}\n\nafter", extensions=["fenced_code"])
    match = re.fullmatch(r"<p>before</p>\n(.*)\n<p>after</p>", page, re.DOTALL)
    assert match, page
    assert set(re.findall(r"</?(\w+)", match[1])) <= {"p", "pre", "code"}
    assert html.unescape(re.sub(r"<[^>]+>", "", match[1])).strip() == expected.strip()


def test_end_replaces_earlier_end_and_keeps_other_text() -> None:
    once = with_end("start\n\nmine", "KILLED", "why")
    assert once == "**KILLED** why\n\nstart\n\nmine"
    assert with_end(once, "KILLED", "why") == once
    assert with_end(f"{once}\n\nadded by a user", "FINISHED", "0.9") == (
        "**FINISHED** 0.9\n\nstart\n\nmine\n\nadded by a user"
    )
    assert with_end("", "FAILED", "x") == "**FAILED** x"
    assert with_end("mine\n\n**FAILED** idea: mine too", "FINISHED", "0.9") == (
        "**FINISHED** 0.9\n\nmine\n\n**FAILED** idea: mine too"
    )


def test_end_does_not_cut_text_of_a_user() -> None:
    long = "x" * (LONGEST - 10)
    assert with_end(long, "FINISHED", "0.9") == long
