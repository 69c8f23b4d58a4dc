"""The console script `experiments`: runs a command, describes keys, prints the version or the shell completion."""

import runpy
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from experiments import DISTRIBUTION
from experiments.cli.startup import closed_pipe_exits
from experiments.config.registry import COMMANDS, about
from experiments.errors import near

HELPERS = {
    "note": 'Adds a note to a run: experiments note ID "text"',
    "worker": "Works on a running sweep: experiments worker sweep=NAME",
    "help": "Describes a command, a key or a group of keys, such as optimizer.",
    "completion": 'Completes in bash and zsh: eval "$(experiments completion)"',
}
COMPLETION = r"""
_experiments_completion() {
    local IFS=$' \t\n' line="${COMP_LINE:0:$COMP_POINT}" command="${COMP_WORDS[1]}" query="${COMP_WORDS[1]}" each
    local word="${line##*[[:space:]]}" done=""
    # bash replaces only the text after the last `=` or `:` of the word, zsh the whole word.
    if [ -z "${ZSH_VERSION-}" ] && [[ "$COMP_WORDBREAKS" == *=* ]]; then
        done="${word%"${word##*[=:]}"}"
    fi
    COMPREPLY=()
    if [ "$COMP_CWORD" -lt 2 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$command"))
        COMPREPLY=("${COMPREPLY[@]/%/ }")
        return 0
    fi
    case "$command:$word" in
        train:-* | evaluate:-* | predict:-* | compare:-* | inspect:-* | doctor:-*)
            COMPREPLY=($(compgen -W "--help --hydra-help --cfg --info --multirun --config-dir" -- "$word"))
            COMPREPLY=("${COMPREPLY[@]/%/ }")
            return 0 ;;
        train:* | evaluate:* | predict:* | compare:* | inspect:* | doctor:*) ;;
        help:*) query=train ;;
        *) return 0 ;;
    esac
    # Hydra completes the overrides of one application: the subcommand is removed from the line it receives. Hydra also
    # lists the internal groups `schema` and `shared`.
    for each in $(COMP_LINE="experiments${line#*"${COMP_WORDS[0]}"*"$command"}" "${COMP_WORDS[0]}" "$query" \
        -sc query=bash 2>/dev/null); do
        case "$each" in
            schema* | shared*) ;;
            *) COMPREPLY+=("${each#"$done"}") ;;
        esac
    done
    return 0
}
if [ -n "${ZSH_VERSION-}" ]; then
    whence compdef >/dev/null || { autoload -Uz compinit && compinit; }
    autoload -Uz bashcompinit && bashcompinit
fi
complete -o nospace -o default -F _experiments_completion experiments
"""


def main() -> None:
    """Runs `experiments COMMAND ...` exactly as `python -m experiments.COMMAND ...`."""
    _add_working_folder()
    with closed_pipe_exits():
        _run(*sys.argv[1:] or ["--help"])


def _run(command: str, *arguments: str) -> None:
    if command in COMMANDS:
        sys.argv[1:] = arguments
        runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
    elif command == "help" and arguments and arguments[0] in COMMANDS:
        _run(arguments[0], "--help")
    elif command == "help" and arguments:
        _print_help(arguments)
    elif command == "note":
        if len(arguments) < 2:
            sys.exit('error: note needs a run and a text. Write experiments note ID "text".')
        _run("compare", f'runs=["{arguments[0]}"]', f"note={arguments[1]}", *arguments[2:])
    elif command == "worker":
        if not any(each.startswith("sweep=") for each in arguments):
            sys.exit("error: worker needs a sweep. Write experiments worker sweep=NAME, with its folder or its id.")
        _run(
            "train",
            "-m",
            *(each.replace("sweep=", "sweep.join=") if each[:6] == "sweep=" else each for each in arguments),
        )
    elif command in ("help", "--help", "-h"):
        print(usage())
    elif command == "completion":
        print(COMPLETION.replace("@COMMANDS@", " ".join([*COMMANDS, *HELPERS])))
    elif command == "--version":
        print(f"experiments {version(DISTRIBUTION)}")
    else:
        sys.exit(f"error: '{command}' is not a command. {near(command, [*COMMANDS, *HELPERS])}")


def _add_working_folder() -> None:
    """Makes the modules of the working folder, such as custom components, importable, as `python -m` does."""
    with suppress(FileNotFoundError):  # a working folder that was deleted has no modules
        folder = str(Path.cwd())
        if not sys.flags.safe_path and sys.path[0] != folder:
            sys.path.insert(0, folder)


def usage() -> str:
    """Lists the commands."""
    purposes = {command: about(command) for command in COMMANDS} | HELPERS
    listed = "\n".join(f"  {name:<12}{purpose}" for name, purpose in purposes.items())
    return f"Usage: experiments COMMAND [KEY=VALUE ...]\n\n{listed}\n\nOptions: COMMAND --help, --version"


def _print_help(arguments: Sequence[str]) -> None:
    from experiments.cli.entry import run_command
    from experiments.cli.help import help_text
    from experiments.config import register

    register()
    run_command(lambda: print(help_text(arguments)), "config", overrides=False)


if __name__ == "__main__":
    main()
