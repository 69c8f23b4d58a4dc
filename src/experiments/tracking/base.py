"""Interface of trackers, which record the parameters, metrics, tags and files of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from experiments.data.base import DataSpec


@dataclass(frozen=True)
class Upload:
    """A file, or a folder with all its files (`directory`), to upload to the artifact `folder` (None: the root).

    replace: Removes the files of `folder` that `directory` does not contain.
    temporary: The folder `directory` was created for this upload and is removed after it.
    growing: The files are still being written; a copy of their current state is uploaded.
    model: Of the run's saved model, a dict of `step`, `digest` and `metrics` (by name: value, step, data set context).
    """

    directory: Path
    folder: str | None = None
    replace: bool = False
    temporary: bool = False
    growing: bool = False
    model: Mapping[str, Any] | None = None


class Tracker:
    """Base class of trackers. It records nothing; subclasses override its methods.

    Entering starts the run; leaving ends it as FINISHED, FAILED (on an error) or KILLED (on an interrupt or exit).
    `page` is the path of the run's page below the address of the MLflow UI; None if the run has no page. `conclusion`
    is Markdown that completes the description if the run ends without an error.
    """

    run_id: str | None = None
    page: str | None = None
    model_uri: str | None = None  # of the logged model, once the store has it
    conclusion: str = ""

    def __init__(self, **settings: Any) -> None:
        """Accepts the keys of `logging` that the run does not read itself, plus output_dir, run_id and identity."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Does not suppress exceptions."""

    def log_params(self, params: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_artifacts(self, upload: Upload) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_dataset(self, spec: "DataSpec", *, context: str) -> None:
        """Records a data set as an input of the run; `context` is "train", "validation" or "test"."""

    def sync(self) -> None:
        """Makes the records so far survive a power failure. Called before each checkpoint is committed."""
