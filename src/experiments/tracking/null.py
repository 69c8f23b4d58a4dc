"""A tracker that keeps nothing: the run leaves its output folder only."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from experiments.data.base import DataSpec


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
