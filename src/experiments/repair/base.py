"""Findings of `doctor`, before and after their repair."""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.cli.safe_text import safe_text
from experiments.config.explain import one_line
from experiments.errors import ExperimentError


@dataclass(frozen=True)
class Finding:
    """A problem that `doctor` reports.

    `what` is the kind: run, journal, left over, output folder, store, cache or sweep. `name` identifies the object and
    `state` describes its problem. `repair` fixes it and returns the result as text; it is None if the user has
    to act. `remedy` describes the repair or the action.
    """

    what: str
    name: str
    state: str
    remedy: str = ""
    repair: Callable[[], str] | None = None


@dataclass(frozen=True)
class Treated:
    """A finding after its repair or instead of it. `done` describes the result or the remedy."""

    finding: Finding
    done: str
    failed: bool = False
    repaired: bool = False

    def row(self) -> dict[str, str]:
        found = self.finding
        return {"what": found.what, "name": found.name, "state": found.state, "repair": self.done}


def treat(finding: Finding, *, fix: bool) -> Treated:
    if finding.repair is None or not fix:
        return Treated(finding, f"fix=true {finding.remedy}" if finding.repair else finding.remedy)
    try:
        return Treated(finding, finding.repair(), repaired=True)
    except Exception as error:  # one finding that cannot be repaired must not hide the others
        kind = "" if isinstance(error, ExperimentError | OSError) else f"{type(error).__name__}: "
        return Treated(finding, f"failed: {kind}{safe_text(one_line(error))}", failed=True)
