"""Types of the commands, and of the keys of `train` that belong to no group."""

from dataclasses import dataclass
from typing import Any

from experiments.config.fields import (
    above,
    at_least,
    at_most,
    auto_or_bool,
    described,
    first_and_last,
    node,
    one_of,
    sizes,
)

_RUN_ID = (
    "Run to read: the beginning of its id, best, last, or the id of the parent run of a sweep for its best job; null "
    "selects the newest finished run of `logging.experiment_name`."
)
_SWEEP = "Sweep whose best job is read: last, or the value of the tag `sweep` of its runs; null to select a run."
_CHECKPOINT = "Checkpoint to read: best, latest, or a number of finished steps, as in checkpoints/ckpt-225."
_FORMAT = "Layout of the output."
_LOGGING = "Tracking store that is read."
_ALLOW_MODULES = "Modules whose classes and functions the record of a run may name, besides built-in components."


@dataclass
class Monitor:
    """Metric that selects the best checkpoint, and that early stopping and the objective of a sweep use."""

    metric: str = described("Metric as it is logged, such as val_accuracy or loss.")
    mode: str = one_of("min", "max", description="Direction in which the metric improves.")
    max_loss: float | None = above(
        0,
        "Largest mean loss of an epoch so far; a larger one fails the run, as does a loss that is not a number. null "
        "for no limit.",
    )


@dataclass
class Checkpoint:
    """Number and frequency of checkpoints."""

    max_to_keep: int = at_least(2, "Number of recent checkpoints to keep.")
    name: str = described("File name prefix of the checkpoints.")
    every_epoch: bool | str = auto_or_bool(
        "Save after each epoch. auto skips epochs if saving would take more than 1 % of the time; the last epoch is "
        "always saved."
    )
    every_n_steps: int | None = at_least(1, "Steps between two checkpoints within an epoch; null for none.")
    every_n_minutes: float | None = above(0, "Minutes between two checkpoints within an epoch; null for none.")
    upload_every_n_minutes: float | None = above(
        0,
        "Minutes between two uploads of the newest and the best checkpoint, so that resume=ID works on another "
        "machine; null uploads when the run ends.",
    )


@dataclass
class TensorBoard:
    """Content of the TensorBoard logs."""

    every_n_steps: int | None = at_least(1, "Steps between two points of the scalars; null for one per epoch.")
    histogram_every_n_epochs: int = at_least(0, "Epochs between two histograms of the weights; 0 for none.")
    graph: bool = described("Write the graphs of the model and of a training step; in a sweep, only for the first job.")
    images: int = at_least(0, "Number of training images in the grid, as the model receives them; 0 for none.")
    profile_steps: list[int] | None = first_and_last("First and last step to profile; null for none.")


@dataclass
class Sweep:
    """Shape and execution of a sweep, which `-m` starts."""

    sampler: Any = described(
        "grid, random, tpe, or an Optuna sampler by its _target_. All but grid accept KEY=interval(LOW,HIGH)."
    )
    n_trials: int = at_least(1, "Number of combinations that a sampler other than grid draws.")
    zip: list[list[str]] = described("Keys whose values are combined one to one instead of as a grid: [[KEY,KEY],...].")
    exclude: list[dict[str, Any]] = described(
        "Combinations to leave out: those that match all values of a rule, [{KEY: VALUE},...]."
    )
    repeats: int = at_least(1, "Runs of each combination, with the seeds seed, seed+1, ...")
    workers: int = at_least(1, "Number of processes; more than one needs hydra/launcher=joblib, ray or submitit.")
    preview: bool = described("Show the plan and run nothing.")
    resume: str | None = described(
        "Continue a stopped sweep: last, its folder, or its id in `sweep.storage`. Finished jobs are kept, stopped "
        "ones continue, and failed ones are retried."
    )
    join: str | None = described(
        "Work on the jobs of a running sweep, which is named as for `sweep.resume`, until none waits; "
        "`experiments worker sweep=NAME` sets it."
    )
    reuse: bool = described("Take over finished runs with the same config, data, code, versions and CPU type.")
    pruner: Any = described("Stop poor jobs early: none, median, hyperband, asha, or an Optuna pruner by its _target_.")
    max_retries: int = at_least(
        0, "Retries of a failed job in total: when the sweep is resumed, or if its worker was killed."
    )
    max_failures: int | None = at_least(1, "Failed jobs after which no other job starts; null for no limit.")
    job_timeout: float | None = above(
        0, "Seconds that a job may take, without loading TensorFlow; a longer one fails. null for no limit."
    )
    objectives: Any = described(
        "Several metrics to optimize, {val_accuracy: max, val_loss: min}, without pruning; null for `monitor.metric`."
    )
    storage: str | None = described(
        "URL of a database for the plan and the queue, so that no disk needs to be shared; null for a file in the "
        "sweep's folder."
    )


@dataclass
class Runtime:
    """Hardware and numerics."""

    precision: str = one_of("float32", "mixed_bfloat16", "mixed_float16", description="Keras dtype policy.")
    deterministic: bool | str = auto_or_bool("Use deterministic operations only. auto: true on CPU, false on GPU.")
    threads: int | None = at_least(
        1,
        "Compute threads of one operation; null for all cores, divided among the workers of a sweep. Recorded, because "
        "results depend on it.",
    )
    strategy: str = one_of(
        "none", "mirrored", description="Distribution strategy; mirrored uses all GPUs of the machine."
    )
    device: str = one_of("auto", "cpu", "gpu", description="Device to train on; auto uses GPUs if there are any.")


@dataclass
class Evaluate:
    """Evaluates a finished run on one of its splits or on other data."""

    run_id: str | None = described(_RUN_ID)
    sweep: str | None = described(_SWEEP)
    checkpoint: str = described(_CHECKPOINT)
    split: str = one_of("train", "validation", "test", description="Split to evaluate.")
    format: str = one_of("table", "csv", "json", description=_FORMAT)
    allow_modules: list[str] = described(_ALLOW_MODULES)
    data: Any = described("Other data with classes of the run; null for the data of the run.", default=None)
    allow_other_data: bool = described("Evaluate the run's data even if it has changed since the training.")
    logging: Any = described(_LOGGING)


@dataclass
class Predict:
    """Predicts the class of images with a finished run."""

    run_id: str | None = described(_RUN_ID)
    sweep: str | None = described(_SWEEP)
    checkpoint: str = described(_CHECKPOINT)
    path: Any = described("Image, folder with images, pattern such as photos/*.jpg, or a list of these.")
    image_size: list[int] = sizes(
        2, "Height and width of the images of a published network (model=...); without effect for a run."
    )
    format: str = one_of("table", "csv", "json", description=_FORMAT)
    allow_modules: list[str] = described(_ALLOW_MODULES)
    model: Any = described(
        "Published network to use instead of a run, with model.include_top=true; null for a run.", default=None
    )
    logging: Any = described(_LOGGING)


@dataclass
class Compare:
    """Compares runs, or shows all differences of two runs."""

    runs: list[str] = described("Runs to compare: the beginnings of their ids, best, or last for the newest run.")
    sweep: str | None = described("Sweep whose jobs are compared: last, or the value of the tag `sweep` of its runs.")
    filter: str | None = described("Filter of MLflow, such as metrics.test_accuracy > 0.9 and params.model = 'cnn'.")
    best: int | None = at_least(1, "Number of best runs, with the monitor and the validation data of the newest one.")
    limit: int = at_least(1, "Maximum number of runs, the newest, without best.")
    diff: list[str] = described("Two runs whose config, code, data, environment and metrics are compared.")
    note: str | None = described("Text that is added to the note of the first of the runs; null for none.")
    format: str = one_of("table", "csv", "json", description=_FORMAT)
    logging: Any = described(f"{_LOGGING} An empty logging.experiment_name selects the newest sweep or experiment.")


@dataclass
class Inspect:
    """Reports counts, sizes, corrupt files and duplicates of a data set."""

    output: str | None = described("File of the HTML page with images; null for no page.")
    decode: bool = described(
        "Decode every image: slower, but finds corruption that header and end of a file do not show."
    )
    samples: int = at_least(0, "Images of each class on the page.")
    data: Any = described("Data set to inspect.")


@dataclass
class Doctor:
    """Shows and repairs dead runs, undelivered events and leftovers."""

    folders: list[str] = described("Folders that contain the run folders.")
    sync: bool = described("Deliver events that the tracking store has not received, and do nothing else.")
    refill: bool = described("Create runs that the tracking store has lost again, from their journals, and deliver.")
    cache_dir: str = described("Folder of the cache. The environment variable EXPERIMENTS_CACHE sets the default.")
    prune: bool = described(
        "Look at the cache only: mark leftovers of killed runs, corrupt entries and unused entries."
    )
    older_than_days: float = at_least(0, "Days without use after which a cache entry counts as unused.")
    fix: bool = described("Repair or remove the findings; false changes nothing, except with sync.")
    format: str = one_of("table", "csv", "json", description=_FORMAT)
    logging: Any = described("Tracking store that is repaired.")


@dataclass
class Config:
    """Trains one experiment, or a sweep of them with -m."""

    seed: int = at_most(2**32 - 1, "Seed of weights, dropout, data order and augmentation.")
    epochs: int = at_least(1, "Number of epochs.")
    progress: str = one_of(
        "auto",
        "bar",
        "plain",
        "none",
        description="Display of progress; auto: a bar on a terminal, plain lines elsewhere.",
    )
    resume: str | None = described(
        "Run to continue: last for the newest unfinished run of this config, or a new run if there is none; or the id "
        "of a run. null starts a new run."
    )
    resume_allow: list[str] = described(
        "Keys that may differ when resuming; also code, versions, data, epochs, replicas."
    )
    allow_modules: list[str] = described(_ALLOW_MODULES)
    on_end: str | None = described(
        "Command that gets the result as JSON on standard input when the run or the sweep ends, fails or is stopped."
    )
    monitor: Monitor = node(Monitor, "Metric that selects the best checkpoint.")
    checkpoint: Checkpoint = node(Checkpoint, "Number and frequency of checkpoints.")
    tensorboard: TensorBoard = node(TensorBoard, "Content of the TensorBoard logs.")
    runtime: Runtime = node(Runtime, "Hardware and numerics.")
    sweep: Sweep = node(Sweep, "Shape and execution of a sweep.")
    data: Any = described("Data set to train on.")
    model: Any = described("Model to train.")
    optimizer: Any = described("Optimizer of Keras.")
    schedule: Any = described("Course of the learning rate over the steps.")
    loss: Any = described("Loss to minimize.")
    metrics: dict[str, Any] = node(dict, "Metrics of training and evaluation, combined as in metrics=[accuracy,top_k].")
    augment: dict[str, Any] = node(dict, "Augmentation of training images, combined as in augment=[flip,rot90].")
    callbacks: dict[str, Any] = node(
        dict, "Keras callbacks, combined as in callbacks=[early_stopping,terminate_on_nan]."
    )
    loop: Any = described("Training loop; fit and tape give the same weights.")
    logging: Any = described("Tracking of runs.")
