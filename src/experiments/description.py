"""What a new run is, for people and for the process that goes on with it."""

from experiments.data import Splits
from experiments.params import flatten
from experiments.provenance import provenance, write_files
from experiments.resume import Origin, typed_overrides
from experiments.snapshot import write_snapshot
from experiments.tracking.base import Tracker


def describe(tracker: Tracker, origin: Origin, splits: Splits) -> None:
    """Params, tags and data sets to the tracker, and `config/` in the output folder.

    Of a run that goes on, only what is different now: it keeps what it began with.
    """
    tracker.set_tags(origin.changed)
    if origin.recorded is not None:
        return
    params = flatten(origin.cfg)
    # What the tracker is built from repeats its neighbours.
    tracker.log_params({name: value for name, value in params.items() if not name.startswith("logging.tracker.")})
    facts, folder = provenance(), origin.output_dir / "config"
    tracker.set_tags(facts.tags())
    write_files(facts, folder)
    for context, split in splits.named().items():
        tracker.log_dataset(split.spec, context=context)
    write_snapshot(folder, origin.cfg, splits.train.spec, typed_overrides())
    # Another machine may go on with the run, and needs to know how it began.
    tracker.log_artifacts(folder, folder=folder.name)
