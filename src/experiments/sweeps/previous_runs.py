"""Earlier runs whose results a job can take, from the same sweep or elsewhere in the experiment."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Run
from omegaconf import DictConfig

from experiments.config.build import build, build_each
from experiments.records.fingerprint import fingerprint, recorded, tags_of
from experiments.records.named_run import JOB, SWEEP
from experiments.records.params import flatten
from experiments.sweeps.plan import Plan, as_in_its_job
from experiments.tracking.mlflow_store import at_best, existing_store, find_runs
from experiments.tracking.uris import has_store

if TYPE_CHECKING:
    from experiments.data import Splits
    from experiments.runs.results import Result

UNREAD = ("config", "data", "replicas")
"""Fingerprint parts not in the query of `equal_to_each`: it compares configs itself, and ignores data and devices."""


def for_job(cfg: DictConfig, tags: Mapping[str, str]) -> Run | None:
    """Newest run of an earlier attempt, found by its tags, or None."""
    return next(iter(_newest(cfg.logging, tags, newest=1)), None)


def for_sweep(plan: Plan) -> dict[int, Run]:
    """Maps each job number to the newest run of the job."""
    oldest_first = reversed(_newest(plan.logging, {SWEEP: plan.id}))
    return {int(run.data.tags[JOB]): run for run in oldest_first if JOB in run.data.tags}


def equal_to(cfg: DictConfig) -> Run | None:
    """Returns the newest finished run with the same config, data, code, versions, CPU type and threads, or None."""
    from experiments.runs import runtime

    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    digests = [split.spec.digest for split in splits.named().values()]
    tags = fingerprint(cfg, digests, cfg.runtime.threads, strategy.num_replicas_in_sync).tags()
    return next(iter(_newest(cfg.logging, tags, status="= 'FINISHED'", newest=1)), None)


def equal_to_each(configs: Mapping[int, DictConfig]) -> dict[int, Run]:
    """Maps job numbers to the runs that `equal_to` returns if data and devices are unchanged.

    Neither is checked, because that takes as long as starting a run. `configs` have their `hydra` nodes.
    """
    found: dict[int, Run] = {}
    known: dict[tuple[str, ...], dict[tuple[str, str], Run]] = {}
    for number, with_hydra in configs.items():
        with as_in_its_job(with_hydra) as cfg:
            parts = recorded(fingerprint(cfg, (), cfg.runtime.threads, replicas=1).tags())
            config_and_path = parts["config"], flatten(cfg.data).get("path", "")
            shared = {name: value for name, value in parts.items() if name not in UNREAD}
            if tuple(shared.values()) not in known:
                oldest_first = reversed(_newest(cfg.logging, tags_of(shared), status="= 'FINISHED'"))
                known[tuple(shared.values())] = {
                    (recorded(run.data.tags)["config"], run.data.tags.get("data_path", "")): run for run in oldest_first
                }
        run = known[tuple(shared.values())].get(config_and_path)
        if run is not None:
            found[number] = run
    return found


def result(run: Run, cfg: DictConfig, output_dir: Path) -> "Result":
    """Result of a finished run, read from the store."""
    from experiments.runs.results import Result

    client = existing_store(cfg.logging.tracking_uri)
    best = at_best(run, client, cfg.monitor.metric, cfg.monitor.mode)
    tested = {name: value for name, value in run.data.metrics.items() if name.startswith("test_")}
    return Result(run.info.run_id, cfg.monitor.metric, best[cfg.monitor.metric], best, tested, output_dir, None)


def _newest(logging: DictConfig, tags: Mapping[str, str], *, status: str = "", newest: int | None = None) -> list[Run]:
    """Runs of the experiment with these tags, newest first; empty without a store."""
    if logging.tracking_uri is None or not has_store(logging.tracking_uri):
        return []
    client = existing_store(logging.tracking_uri)
    return list(find_runs(client, logging.experiment_name, tags, status=status, newest=newest))
