"""Frozen MobileNetV2 (alpha 0.35, 160 px, batch 32) on photos: with experiments, and as a bare Keras script."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measurement import HERE, cats_dogs, empty_store, imagenet_weights, photos, run


@dataclass(frozen=True)
class TransferJob:
    """Each run works in a folder of its own, with a store that exists; both log no model.

    Everything else is as each side ships it: experiments repeats bit for bit on CPU and draws its figures, autologging
    keeps a TensorBoard log and the best model.
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
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            shutil.copy(self.store, Path(own) / "mlflow.db")
            return run([sys.executable, *arguments], Path(own))


def transfer_job(folder: Path) -> TransferJob:
    cats_dogs(folder)  # drawn now, if need be, in nobody's time
    return TransferJob(folder, empty_store(folder))
