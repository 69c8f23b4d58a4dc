"""Time of a training step with loop=tape, compared with loop=fit.

    python benchmarks/loops.py [ROUNDS]

Trains a cnn on digits and a MobileNetV2 on photos; both loops alternate in one process (see turns.py).
"""

import sys
import tempfile
from pathlib import Path

from measurement import DIGITS, photos, show_ratio
from turns import Training, Turns, compare, composed, prepared, start, take_turns

from experiments.config.build import build
from experiments.loops import Position

BOUND = 1.05


def training(*overrides: str) -> Training:
    cfg = composed("logging=none", *overrides)
    model, splits = prepared(cfg)
    loop = build(cfg.loop)

    def train(turns: Turns) -> None:
        loop(model, splits, epochs=cfg.epochs, start=Position(), callbacks=[turns])

    return train


def measure(name: str, rounds: int, epochs: int, job: list[str]) -> None:
    trainings = {loop: training(f"loop={loop}", f"epochs={rounds * epochs}", *job) for loop in ("tape", "fit")}
    turns = take_turns(trainings, epochs)
    ratio = compare("tape", "fit", {loop: taken.step_seconds for loop, taken in turns.items()})
    show_ratio(f"loops {name}", ratio, BOUND)


def main(rounds: int) -> None:
    start()
    with tempfile.TemporaryDirectory() as name:
        measure("cnn", rounds, 4, DIGITS)
        measure("mobilenetv2", rounds, 1, [*photos(Path(name)), "data.cache=memory"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
