"""Job of first_step.py and total_time.py: a frozen MobileNetV2 (alpha 0.35, 160 px, batch 32) on photos.

It runs with this package or as the plain Keras script bare_keras.py.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measurement import HERE, cats_dogs, empty_store, imagenet_weights, photos, run


@dataclass(frozen=True)
class TransferJob:
    """Runs the job in a new folder with an existing store. Neither side logs a model.

    All other settings are the defaults of each side: this package is bit-exact on CPU and draws figures; autologging
    stores a TensorBoard log and the best model.
    """

    folder: Path
    store: Path

    def ours(self, *overrides: str) -> float:
        return self._run(
            [
                *("-m", "experiments.train", *photos(self.folder), "data.cache=none"),
                *("logging=mlflow", "logging.log_model=false", *overrides),
            ]
        )

    def bare(self, *options: str) -> float:
        return self._run(
            [str(HERE / "bare_keras.py"), str(cats_dogs(self.folder)), "--weights", imagenet_weights(), *options]
        )

    def _run(self, arguments: Sequence[str]) -> float:
        with tempfile.TemporaryDirectory(dir=self.folder) as directory:
            shutil.copy(self.store, Path(directory) / "mlflow.db")
            return run([sys.executable, *arguments], Path(directory))


def transfer_job(folder: Path) -> TransferJob:
    cats_dogs(folder)  # draws missing photos now, so that no side is timed with it
    return TransferJob(folder, empty_store(folder))
