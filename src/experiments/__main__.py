"""The console script `experiments`: runs a command, describes keys, prints the version or the shell completion."""

import runpy
import sys
from importlib.metadata import version
from pathlib import Path

from experiments import DISTRIBUTION

COMMANDS = {
    "train": "Train one experiment, or a sweep of them with -m.",
    "evaluate": "Evaluate a finished run on one of its splits or on other data.",
    "predict": "Predict the class of images with a finished run.",
    "inspect": "Report counts, sizes, corrupt files and duplicates of a data set, with pictures.",
    "doctor": "Show and repair dead runs, undelivered events, leftovers and the cache.",
}
HELPERS = {
    "help": "Describe a key or a group of keys, as in: experiments help optimizer.learning_rate",
    "completion": 'Print the shell completion for bash and zsh: eval "$(experiments completion)"',
}
COMPLETION = r"""
_experiments_completion() {
    local line="${COMP_LINE:0:$COMP_POINT}" command="${COMP_WORDS[1]}" query="${COMP_WORDS[1]}"
    local word="${COMP_WORDS[COMP_CWORD]}" each
    COMPREPLY=()
    if [ "$COMP_CWORD" -lt 2 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$command"))
        COMPREPLY=("${COMPREPLY[@]/%/ }")
        return
    fi
    case "$command:$word" in
        train:-* | evaluate:-* | predict:-* | inspect:-* | doctor:-*)
            COMPREPLY=($(compgen -W "--help --hydra-help --cfg --info --multirun --config-dir" -- "$word"))
            COMPREPLY=("${COMPREPLY[@]/%/ }")
            return ;;
        train:* | evaluate:* | predict:* | inspect:* | doctor:*) ;;
        help:*) query=train ;;
        *) return ;;
    esac
    # Hydra completes the overrides of one application: the subcommand is removed from the line it receives. Hydra also
    # lists the internal groups `schema` and `shared`.
    for each in $(COMP_LINE="experiments${line#*"${COMP_WORDS[0]}"*"$command"}" "${COMP_WORDS[0]}" "$query" \
        -sc query=bash 2>/dev/null); do
        case "$each" in
            schema* | shared*) ;;
            *) COMPREPLY+=("$each") ;;
        esac
    done
}
[ -z "$ZSH_VERSION" ] || { autoload -Uz compinit bashcompinit && compinit && bashcompinit; }
# KEY=VALUE is one word.
COMP_WORDBREAKS="${COMP_WORDBREAKS//=}"
complete -o nospace -o default -F _experiments_completion experiments
"""


def main() -> None:
    """Runs `experiments COMMAND ...` exactly as `python -m experiments.COMMAND ...`."""
    # `python -m` finds the modules of the working folder, such as custom components; a console script does not.
    if sys.path[0] != str(Path.cwd()):
        sys.path.insert(0, str(Path.cwd()))
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        sys.argv[1:] = arguments
        runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
    elif command == "help" and arguments and arguments[0] in COMMANDS:
        sys.argv[1:] = [arguments[0], "--help"]
        main()
    elif command == "help" and arguments:
        _print_help(arguments)
    elif command in ("help", "--help", "-h"):
        print(usage())
    elif command == "completion":
        print(COMPLETION.replace("@COMMANDS@", " ".join(COMMANDS | HELPERS)))
    elif command == "--version":
        print(f"experiments {version(DISTRIBUTION)}")
    else:
        from experiments.errors import near

        sys.exit(f"error: '{command}' is not a command. {near(command, COMMANDS | HELPERS)}")


def usage() -> str:
    """Lists the commands."""
    listed = "\n".join(f"  {name:<12}{purpose}" for name, purpose in (COMMANDS | HELPERS).items())
    return f"Usage: experiments COMMAND [KEY=VALUE ...]\n\n{listed}\n\nOptions: COMMAND --help, --version"


def _print_help(arguments: list[str]) -> None:
    from experiments.cli.help import help_text
    from experiments.config import register
    from experiments.config.explain import EXPLAINED, explain
    from experiments.config.registry import CONF

    register()
    try:
        print(help_text(arguments))
    except EXPLAINED as error:
        sys.exit(f"error: {explain(error, CONF, 'config')}")


if __name__ == "__main__":
    main()
