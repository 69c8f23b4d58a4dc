"""The last lines of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.cli.report import report


@pytest.mark.parametrize(
    ("tracking_uri", "run_id", "page", "said", "links"),
    [
        ("sqlite:///m.db", "abc", "#/runs/abc", "abc", True),
        ("sqlite:///m.db", None, None, "none", False),  # a tracker of the user's own, without a page
        (None, None, None, "none (logging=none)", False),
    ],
)
def test_a_run_without_a_page_gets_no_link(
    capsys: pytest.CaptureFixture[str],
    tracking_uri: str | None,
    run_id: str | None,
    page: str | None,
    said: str,
    links: bool,
) -> None:
    result: Any = SimpleNamespace(
        run_id=run_id,
        page=page,
        objective=0.5,
        monitored="val_loss",
        metrics={},
        output_dir=Path("outputs"),
        model_uri=None,
    )
    report(result, tracking_uri)
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    assert lines["run id"].strip() == said
    assert ("MLflow" in lines) == links
