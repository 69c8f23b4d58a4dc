"""Runs that users name: by the beginning of an id, `last` or `best`."""

import logging
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from experiments.errors import TrackingError, reading
from experiments.records.fingerprint import tags_of
from experiments.tracking.names import valid_name
from experiments.tracking.redaction import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP, JOB = "sweep", "sweep.job"
"""Tags of the runs of a sweep: its id, and the number of the job, which its parent run does not have."""
METRIC, MODE, DATA = RANKING = ("monitor.metric", "monitor.mode", "data_digest")
"""Tags that ranked runs share; `data_digest` is that of the validation split."""
DONE = "attributes.status = 'FINISHED'"
RUN_ID = re.compile("[0-9a-f]{4,32}")
EXAMINED = 100
"""Number of newest finished runs that are examined for the report on excluded runs: reading one takes 2 ms."""
logger = logging.getLogger(__name__)


def is_parent(run: "Run") -> bool:
    return SWEEP in run.data.tags and JOB not in run.data.tags


def sweep_of(client: "MlflowClient", name: str) -> str:
    """Returns the id of the sweep `name`, which may also be the beginning of the id of its parent run."""
    from experiments.tracking.mlflow_store import find_runs

    id_starts = f"attributes.run_id LIKE '{name}%'"
    parents = find_runs(client, tags={SWEEP: None}, where=id_starts, newest=1) if RUN_ID.fullmatch(name) else ()
    return next((str(run.data.tags[SWEEP]) for run in parents), name)


def named_run(client: "MlflowClient", name: str | None, experiment: str | None, key: str = "run_id") -> "Run":
    """Returns the run `name`, or the newest finished run for None. Raises TrackingError if there is none."""
    from experiments.tracking.mlflow_store import existing_run, find_runs

    if name == "best":
        return best_runs(client, experiment, 1)[0]
    if name is None or name == "last":
        # Parent runs of sweeps and runs of other programs have no fingerprint.
        tags: dict[str, str | None] = dict.fromkeys(tags_of({"config": ""}))
        newest = next(find_runs(client, experiment, tags, where="" if name else DONE, newest=1), None)
        if newest is None:
            raise TrackingError(
                f"logging.experiment_name={experiment} has no {'' if name else 'finished '}run in "
                f"{mask(client.tracking_uri)}. Train one with experiments train, or name run_id=ID or another store by "
                "logging.tracking_uri."
            )
        name = newest.info.run_id
    elif len(name) < 32 and RUN_ID.fullmatch(name):
        found = [run.info.run_id for run in find_runs(client, where=f"attributes.run_id LIKE '{name}%'", newest=2)]
        if len(found) > 1:
            raise TrackingError(f"{key}={name} begins several ids, such as {' and '.join(found)}. Type more of one.")
        name = found[0] if found else name
    return existing_run(client, name, key)


def best_runs(client: "MlflowClient", experiment: str | None, most: int, where: str = "") -> list["Run"]:
    """Returns up to `most` finished runs with the monitor, mode and validation data of the newest one, the best first.

    `where` is a further filter of MLflow. Logs how many of the newest finished runs are excluded and why. Raises
    TrackingError if no run can be ranked.
    """
    from experiments.tracking.mlflow_store import checked, find_runs

    done = " and ".join(filter(None, [DONE, where]))
    recent = [run for run in find_runs(client, experiment, where=done, newest=EXAMINED) if not is_parent(run)]
    ranks = [tuple(run.data.tags.get(name, "") for name in RANKING) for run in recent]
    metric, mode, data = wanted = next(filter(all, ranks), ("", "", ""))
    best, order = f"metrics.`{valid_name(f'best_{metric}')}`", "DESC" if mode == "max" else "ASC"
    with reading(f"the monitor {metric[:99]!r} of the newest finished run"):
        # MLflow's sort takes seconds with more conditions. The comparison excludes runs without the metric.
        rule, tags = f"{done} and {best} > -1.7e308", {DATA: data}
        order = f"{best} {order}, attributes.start_time ASC"  # of equal runs, the first
        by_rank = find_runs(client, experiment, tags, where=rule, order=order, page=most + EXAMINED)
        ranked = (run for run in by_rank if run.data.tags.get(MODE) == mode)
        found = [checked(client, run) for run in islice(ranked, most)]
    if not found:
        raise TrackingError(
            f"no finished run of logging.experiment_name={experiment} in {mask(client.tracking_uri)} can be ranked: "
            f"expected the tags {', '.join(RANKING)} and {best}. Name a run by its id, or train one."
        )
    others = [rank[:2] == wanted[:2] for rank in ranks if rank != wanted]
    reasons = Counter("other validation data" if same else "another monitor or none" for same in others)
    texts = ", ".join(f"{number} with {reason}" for reason, number in reasons.items()) or "none"
    shown = found[0].info.run_id, found[0].data.metrics[valid_name(f"best_{metric}")], metric, len(recent), texts
    logger.info("Best run: %s with %.6g as best %s. Excluded of the newest %d finished runs: %s.", *shown)
    return found
