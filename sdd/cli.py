"""The command ``sdd``. What a command needs is imported when it runs, so that ``--help`` is quick."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from sdd.commands import COMMANDS as COMMANDS
from sdd.commands import Command
from sdd.shell import (
    EXIT_CODES,
    FAILED,
    FINISHED,
    INTERRUPTED,
    USAGE,
    UsageError,
    end_on_second_interrupt,
    prepare_environment,
    say,
)

HELP = """sdd: on-policy self-distillation in JAX, and what it costs in diversity

usage:
  sdd COMMAND ...
  sdd COMMAND --help    its arguments, with examples
  sdd --version

commands, each with an example:
{commands}
Ctrl-C once: a run saves and stops, and everything else stops. Twice: it stops now.

{exit_codes}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code; see ``sdd --help``.

    Args:
      argv: arguments without the program's name; those of the process when None.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(help_text(), end="", file=sys.stdout if args else sys.stderr)
        return FINISHED if args else USAGE
    if args[0] == "--version":
        from sdd import __version__

        print(f"sdd {__version__}")
        return FINISHED
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"nearest: {near[0]}; " if near else ""
        return say(f"unknown command {name!r}; {hint}valid: {', '.join(COMMANDS)} (see sdd --help)", USAGE)
    if rest in (["--help"], ["-h"]):
        print(getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].help), end="")
        return FINISHED
    caught: Callable[[], object] = int
    if argv is None:  # the process is ours
        sys.unraisablehook = lambda unraisable: None  # orbax leaves coroutines behind when a read fails
        caught = end_on_second_interrupt()
    try:
        return start(COMMANDS[name], rest)
    except UsageError as error:
        return say(f"{error} (see sdd {name} --help)", USAGE)
    except KeyboardInterrupt:
        code = say("interrupted", INTERRUPTED)
        caught()
        return code
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, and Python would complain of that at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return say("whoever read the output has stopped reading", FAILED)


def help_text() -> str:
    """What ``sdd --help`` prints."""
    lines = [f"  {name:11s} {c.summary}\n  {'':11s}   {c.example}\n" for name, c in COMMANDS.items()]
    return HELP.format(commands="".join(lines), exit_codes=EXIT_CODES)


def start(command: Command, args: Sequence[str]) -> int:
    """Imports a command and runs it; returns its exit code."""
    if command.on_the_cpu:
        prepare_environment(0)
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return getattr(importlib.import_module(command.module), command.run)(args)
