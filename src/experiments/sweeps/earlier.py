"""What was already done for a job, in this sweep or elsewhere in the experiment."""

from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Run
from omegaconf import DictConfig

from experiments import runtime
from experiments.build import build, build_each
from experiments.data import Splits
from experiments.fingerprint import PREFIX, fingerprint
from experiments.run import Result
from experiments.run_store import at_best, existing_store
from experiments.tracking.addresses import has_store

SAME = ("config", "code", "versions", "data", "epochs", "cpu", "threads", "replicas")


def of_this_job(cfg: DictConfig, tags: Mapping[str, str]) -> Run | None:
    """The run that an earlier attempt has begun."""
    return _newest(cfg, tags)


def of_this_config(cfg: DictConfig) -> Run | None:
    """A finished run of the experiment that cannot but be equal: config, data, code, versions and machine are."""
    strategy = runtime.configure(seed=cfg.seed, **cfg.runtime)
    splits: Splits = build(cfg.data, seed=cfg.seed, augment=build_each(cfg.augment))
    digests = [split.spec.digest for split in splits.named().values()]
    now = fingerprint(cfg, digests, cfg.runtime.threads, strategy.num_replicas_in_sync).tags()
    return _newest(cfg, {f"{PREFIX}{name}": now[f"{PREFIX}{name}"] for name in SAME}, status="FINISHED")


def result(run: Run, cfg: DictConfig, output_dir: Path) -> Result:
    """What the finished run has returned."""
    client = existing_store(cfg.logging.tracking_uri)
    best = at_best(run, client, cfg.monitor.metric, cfg.monitor.mode)
    tested = {name: value for name, value in run.data.metrics.items() if name.startswith("test_")}
    return Result(run.info.run_id, cfg.monitor.metric, best[cfg.monitor.metric], best, tested, output_dir, None)


def _newest(cfg: DictConfig, tags: Mapping[str, str], status: str | None = None) -> Run | None:
    if cfg.logging.tracking_uri is None or not has_store(cfg.logging.tracking_uri):
        return None
    client = existing_store(cfg.logging.tracking_uri)
    experiment = client.get_experiment_by_name(cfg.logging.experiment_name)
    if experiment is None:
        return None
    rules = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
    rules += [] if status is None else [f"attributes.status = '{status}'"]
    found = client.search_runs(
        [experiment.experiment_id], " and ".join(rules), order_by=["start_time DESC"], max_results=1
    )
    return next(iter(found), None)
