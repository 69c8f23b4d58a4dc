"""Time of the commands that read only the config, compared with `import hydra`.

    python benchmarks/startup.py [ROUNDS]

Measures --help, --cfg job and tab completion, each of which must take less than a second.
"""

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
        # Variables by which Hydra's completion script passes the typed line.
        completing = {"COMP_LINE": TYPED, "COMP_POINT": str(len(TYPED))}

        def seconds(arguments: list[str]) -> float:
            return run([sys.executable, *arguments], Path(name), **completing)

        sides = {command: (lambda arguments=arguments: seconds(arguments)) for command, arguments in COMMANDS.items()}
        median = interleaved(sides, rounds)
    hydra = median.pop("import hydra")
    for command, taken in median.items():
        print(f"startup {command}: {taken:.2f} s, ratio {taken / hydra:.1f} to import hydra (bound {BOUND_SECONDS} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
