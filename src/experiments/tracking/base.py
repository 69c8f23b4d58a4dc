"""The tracking seam: where a run writes what people compare later."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from experiments.data.base import DataSpec


class Tracker(Protocol):
    """Entering starts the run; leaving ends it FINISHED, FAILED (on an error) or KILLED (on an interrupt or exit)."""

    @property
    def run_id(self) -> str | None: ...

    @property
    def page(self) -> str | None:
        """Where the MLflow page shows the run, below the page's address."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def log_params(self, params: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_artifacts(
        self,
        directory: Path,
        *,
        folder: str | None = None,
        replace: bool = False,
        temporary: bool = False,
        growing: bool = False,
    ) -> None:
        """Uploads everything below `directory` into the run's artifact `folder` (None: the root).

        replace: what the folder held before, and `directory` does not, goes.
        temporary: `directory` was made for this upload and goes when the store has taken it.
        growing: its files are still being written, and are uploaded as they are at one moment.
        """
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_dataset(self, spec: "DataSpec", *, context: str) -> None:
        """Records a data set as a logged input; `context` is "train", "validation" or "test"."""
        ...


class NullTracker:
    """Takes the runtime arguments that every tracker gets."""

    run_id: None = None
    page: None = None

    def __init__(
        self,
        *,
        output_dir: Path,
        run_name: str | None,
        run_id: str | None = None,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing to keep: the folder and the names are the run's own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Errors pass through."""

    def log_params(self, params: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_artifacts(
        self,
        directory: Path,
        *,
        folder: str | None = None,
        replace: bool = False,
        temporary: bool = False,
        growing: bool = False,
    ) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_dataset(self, spec: "DataSpec", *, context: str) -> None: ...
