"""One thing that is not as it should be, and what can be done about it."""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.config.explain import one_line
from experiments.errors import ExperimentError


@dataclass(frozen=True)
class Finding:
    """what: run, journal, left over, output folder, store or cache; name: which one; state: what is wrong with it.

    remedy: what `repair` does; repair: does it and says what was done. Neither where a person has to decide.
    """

    what: str
    name: str
    state: str
    remedy: str = ""
    repair: Callable[[], str] | None = None


@dataclass(frozen=True)
class Treated:
    """A finding after its repair, or before it. done: what was done or would be; failed: whether that did not work."""

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
    except (ExperimentError, OSError) as error:
        return Treated(finding, f"failed: {one_line(error)}", failed=True)
