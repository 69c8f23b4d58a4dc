"""Two training loops whose trained weights are bit for bit identical."""

from experiments.loops.base import History, Loop, Position
from experiments.loops.evaluation import update_loss
from experiments.loops.fit import FitLoop
from experiments.loops.tape import TapeLoop

__all__ = ["FitLoop", "History", "Loop", "Position", "TapeLoop", "update_loss"]
