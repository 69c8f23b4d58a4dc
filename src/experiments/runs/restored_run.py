"""The model of a finished run, built and restored for evaluation."""

import keras

from experiments.checkpoints.store import find
from experiments.checkpoints.training_state import restore_weights
from experiments.config.build import build
from experiments.records.finished_run import FinishedRun
from experiments.runs import runtime


def restored_model(past: FinishedRun, checkpoint: str) -> keras.Model:
    """The run's model, compiled for evaluation, with the weights of checkpoint `best`, `latest` or a number."""
    cfg = past.cfg
    runtime.configure(seed=cfg.seed, **{**cfg.runtime, "threads": None, "device": "auto", "strategy": "none"})
    if "weights" in cfg.model:
        # The checkpoint holds them; reading them again would need the file or the network they came from.
        cfg.model.weights = None
    model = build(cfg.model, input_shape=past.spec.input_shape, num_classes=past.spec.num_classes)
    model(keras.ops.zeros((1, *past.spec.input_shape), past.spec.input_dtype))
    restore_weights(model, find(past.checkpoints, checkpoint, owner=f"run {past.run_id}"))
    metrics = [build(node, name=name) for name, node in cfg.metrics.items() if node is not None]
    model.compile(loss=build(cfg.loss), metrics=metrics, jit_compile=False)
    return model
