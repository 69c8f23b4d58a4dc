"""Descriptions of runs: Markdown that the MLflow page shows above the values of a run."""

import re

NOTE = "mlflow.note.content"
LONGEST, LONGEST_BLOCK, LONGEST_LINE = 4000, 2500, 300
"""Maximum characters of a description, of a block in it, and of code within a line."""
_END = re.compile(r"\A\*\*(?:FINISHED|FAILED|KILLED)\*\*.*")


def code(text: str, *, block: bool = False) -> str:
    """Returns text of any origin as code, within a line or as a block: nothing in it is a link, HTML or a format."""
    text, longest = (text, LONGEST_BLOCK) if block else (" ".join(text.split()), LONGEST_LINE)
    text = text if len(text) <= longest else f"{text[:longest]} ... (cut)"
    # More backticks than the text has in a row, so that it cannot end the code.
    fence = "`" * max(3 if block else 1, 1 + max(map(len, re.findall("`+", text)), default=0))
    space = "\n" if block else " " * ("`" in text)
    return f"{fence}{space}{text}{space}{fence}"


def with_end(note: str, status: str, text: str) -> str:
    """Returns the description after a line on the end of the run, which replaces an earlier one. Other text is kept."""
    kept, end = _END.sub("", note).strip(), f"**{status}** {text}"
    # MLflow's page shows only the first five lines of a description until a user clicks on "Show more".
    return f"{end}\n\n{kept}".strip() if len(kept) + len(end) + 2 <= LONGEST else kept
