"""Time of the commands that read only the config, beside `import hydra` alone."""

import sys
import tempfile
from pathlib import Path

from measurement import interleaved, run

BOUND_SECONDS = 1.0
TYPED = "experiments.train model=mob"
COMMANDS = {
    "--help": ["-m", "experiments.train", "--help"],
    "--cfg job": ["-m", "experiments.train", "model=mobilenetv2", "data=cats_dogs", "--cfg", "job"],
    "tab completion": ["-m", "experiments.train", "-sc", "query=bash"],
    "import hydra": ["-c", "import hydra"],
}


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        # What Hydra's completion script tells of the line being typed.
        completing = {"COMP_LINE": TYPED, "COMP_POINT": str(len(TYPED))}

        def seconds(arguments: list[str]) -> float:
            return run([sys.executable, *arguments], Path(name), **completing)

        sides = {command: (lambda words=words: seconds(words)) for command, words in COMMANDS.items()}
        median = interleaved(sides, rounds)
    hydra = median.pop("import hydra")
    for command, taken in median.items():
        print(f"startup {command}: {taken:.2f} s, ratio {taken / hydra:.1f} to import hydra (bound {BOUND_SECONDS} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
