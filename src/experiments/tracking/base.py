"""The tracking seam: where a run writes what people compare later."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from experiments.data.base import DataSpec


@dataclass(frozen=True)
class Upload:
    """The file `directory`, or everything below it, and the artifact `folder` of the run it goes to (None: the root).

    replace: what the folder held before, and `directory` does not, goes.
    temporary: `directory` was made for this upload and goes when the store has taken it.
    growing: its files are still being written, and are uploaded as they are at one moment.
    """

    directory: Path
    folder: str | None = None
    replace: bool = False
    temporary: bool = False
    growing: bool = False


class Tracker:
    """Keeps nothing; each method is there to be overridden.

    Entering starts the run; leaving ends it FINISHED, FAILED (on an error) or KILLED (on an interrupt or exit).
    page: where the MLflow page shows the run, below the page's address.
    """

    run_id: str | None = None
    page: str | None = None

    def __init__(self, **settings: Any) -> None:
        """Takes the keys of `logging` that the run does not read itself, and output_dir, run_id and identity."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Lets errors pass through."""

    def log_params(self, params: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_artifacts(self, upload: Upload) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_dataset(self, spec: "DataSpec", *, context: str) -> None:
        """Records a data set as a logged input; `context` is "train", "validation" or "test"."""
