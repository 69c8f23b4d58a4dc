"""Types of `logging=...`: keys of the tracker, and keys that the run reads itself."""

from experiments.config.fields import Target, above, at_least, described, option

_TRACKING_URI = (
    "Tracking store: sqlite:///FILE, or the http(s):// address of an MLflow server. "
    "The environment variable MLFLOW_TRACKING_URI sets the default."
)
_EXPERIMENT_NAME = "MLflow experiment of the run. MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID sets the default."


@option("none")
class Untracked(Target):
    """Writes nothing to MLflow. It accepts the keys that the run itself reads, so that they need not be removed."""

    tracking_uri: str | None = described(_TRACKING_URI)
    experiment_name: str | None = described(_EXPERIMENT_NAME)
    run_name: str | None = described("Name of the run in MLflow; null generates it. MLFLOW_RUN_NAME sets the default.")
    every_n_steps: int = at_least(1, "Steps between two points of the `batch/...` metrics.")
    log_model: bool = described("Save the best model to `model/` when training ends.")
    log_figures: bool = described("Write learning curves, and tables and figures of the predictions, to `figures/`.")
    tags: dict[str, str] = described("Tags of the run, NAME: TEXT. Add one with +logging.tags.NAME=TEXT.")


@option("mlflow")
class Mlflow(Untracked):
    """Records parameters, metrics, system metrics and artifacts in MLflow."""

    tracking_uri: str = described(_TRACKING_URI)
    experiment_name: str = described(_EXPERIMENT_NAME)
    flush_timeout: float = at_least(
        0, "Seconds without progress after which the run stops waiting for an unavailable tracking store."
    )
    grace_seconds: float = at_least(0, "Seconds for the last delivery after a signal that stops the run.")
    delivery_interval: float = above(0, "Seconds between two deliveries of recorded events to the tracking store.")
    system_metrics: bool = described(
        "Record CPU, memory, disk, network and GPU use. MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING sets the default."
    )
    system_metrics_interval: float = above(
        0, "Seconds between two samples. MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets the default."
    )
