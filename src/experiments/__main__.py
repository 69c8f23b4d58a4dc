"""`python -m experiments` lists the commands."""

COMMANDS = {
    "train": "trains one experiment, or with -m a grid of them",
    "evaluate": "loss and metrics of a finished run on any split or other data",
    "predict": "class and probability for images",
    "inspect": "counts, sizes, damaged files, duplicates and pictures of a data set",
    "doctor": "dead runs, undelivered events, leftovers and the cache of decoded data: shows and repairs",
}


def main() -> None:
    print("Commands, each with --help:\n")
    for name, purpose in COMMANDS.items():
        print(f"  python -m experiments.{name:<10} {purpose}")


if __name__ == "__main__":
    main()
