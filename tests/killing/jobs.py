"""Small trainings that together use every kind of state that a stop could lose."""

from pathlib import Path

import numpy as np

COMMON = (
    "data=npz",
    "data.path=images.npz",
    "data.batch_size=8",
    "epochs=4",
    "seed=3",
    "resume=last",
    "progress=none",
    "optimizer.learning_rate=0.01",
    "logging.every_n_steps=1",
    "logging.delivery_interval=0.2",
    "logging.system_metrics_interval=0.5",
    "logging.log_model=false",
    "tensorboard.every_n_steps=2",
    "tensorboard.graph=false",
    "checkpoint.every_epoch=true",
)
CNN = ("model=cnn", "model.filters=[4,8]", "model.dropout=0.3", "model.l2=0.001")
CALLBACKS = (
    "callbacks=[early_stopping,reduce_on_plateau]",
    "callbacks.early_stopping.patience=2",
    "callbacks.early_stopping.restore_best_weights=true",
    "callbacks.reduce_on_plateau.patience=1",
    "+callbacks.own._target_=own_code.Norm",
)
EVERYTHING = (*CNN, *CALLBACKS, "augment=[flip,rot90,color_jitter]", "epochs=6", "checkpoint.every_n_steps=2")
FROZEN = ("model=mobilenetv2", "model.alpha=0.35", "model.weights=null", "epochs=2", "checkpoint.every_n_steps=3")
JOBS: dict[str, tuple[str, ...]] = {
    "short": ("loop=fit", *CNN, "epochs=2", "logging.every_n_steps=3"),
    "fit": ("loop=fit", *EVERYTHING),
    "tape": ("loop=tape", *EVERYTHING),
    "ema": ("loop=fit", *CNN, "optimizer.use_ema=true", "optimizer.ema_momentum=0.9", "checkpoint.every_n_steps=2"),
    "ema_tape": ("loop=tape", *CNN, "optimizer.use_ema=true", "optimizer.ema_momentum=0.9"),
    "accumulation": ("loop=fit", *CNN, "optimizer.gradient_accumulation_steps=2", "checkpoint.every_n_steps=1"),
    "accumulation_tape": ("loop=tape", *CNN, "optimizer.gradient_accumulation_steps=2", "checkpoint.every_n_steps=1"),
    "executions": ("loop=fit", *CNN, "loop.steps_per_execution=3", "checkpoint.every_n_steps=2"),
    "executions_tape": ("loop=tape", *CNN, "loop.steps_per_execution=3", "checkpoint.every_n_steps=2"),
    "defaults": ("loop=fit", *CNN, "checkpoint.every_epoch=auto", "tensorboard.graph=true", "logging.log_model=true"),
    "cosine": ("loop=tape", *CNN, "schedule=cosine", "schedule.warmup_steps=3", "runtime.precision=mixed_float16"),
    "frozen": ("loop=fit", *FROZEN, "model.cache_features=false"),
    "features": ("loop=tape", *FROZEN, "model.cache_features=true", "logging.log_model=true"),
}
OWN_CODE = '''
import random

import keras
import numpy as np

from experiments import log_scalar


class Norm(keras.callbacks.Callback):
    """Logs a custom scalar, and draws from the global random generators."""

    def on_epoch_end(self, epoch, logs=None):
        log_scalar("own/norm", float(np.linalg.norm(self.model.get_weights()[0])), epoch + 1)
        log_scalar("own/drawn", random.random() + np.random.random(), epoch + 1)
'''


def draw(folder: Path) -> None:
    """Draws 45 training and 13 validation images. The last batch of 8 is short in both splits."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (58, 32, 32, 3), np.uint8), generator.integers(0, 3, 58)
    images[np.arange(58), :, :, labels] //= 2
    train, held = slice(0, 45), slice(45, None)
    np.savez(
        folder / "images.npz",
        x_train=images[train], y_train=labels[train], x_validation=images[held], y_validation=labels[held],
    )  # fmt: skip
    (folder / "own_code.py").write_text(OWN_CODE, encoding="utf-8")
