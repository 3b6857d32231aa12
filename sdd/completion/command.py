"""``sdd completion``: prints a shell's script, and the words that the script asks for."""

from collections.abc import Sequence
from importlib import resources

from sdd.shell import FINISHED, UsageError, exit_codes

SHELLS = ("bash", "zsh", "fish")

HELP = f"""sdd completion: completion of command lines for a shell

usage:
  sdd completion bash|zsh|fish

Prints a script for the shell to read. It completes commands and their options, config files, the keys and
values of the given config file (--config.KEY; this runs the file), and folders of runs and studies.

examples:
  eval "$(sdd completion bash)"                                         # for ~/.bashrc
  eval "$(sdd completion zsh)"                                          # for ~/.zshrc, after compinit
  sdd completion fish > ~/.config/fish/completions/sdd.fish

The scripts ask sdd completion words WORD ... which prints what the last word may become, one a line.

{exit_codes(FINISHED, 2)}"""


def run(args: Sequence[str]) -> int:
    """``sdd completion``: returns the exit code.

    Raises:
      UsageError: an unknown shell.
    """
    if args and args[0] == "words":
        from sdd.completion import words

        print("".join(f"{word}\n" for word in words.complete(args[1:])), end="")
        return FINISHED
    if len(args) != 1 or args[0] not in SHELLS:
        raise UsageError(f"sdd completion got {' '.join(args) or 'nothing'}; valid: {', '.join(SHELLS)}")
    print(resources.files("sdd.completion").joinpath(f"sdd.{args[0]}").read_text(), end="")
    return FINISHED
