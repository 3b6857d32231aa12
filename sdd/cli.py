"""The command ``sdd``. What a command needs is imported when it runs, so that ``--help`` is quick."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

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


class Command(NamedTuple):
    """A command of the table below.

    Attributes:
      module: has ``HELP`` and ``run(args) -> exit code``, and imports nothing heavy by itself.
      summary: what it does, in a few words.
      example: a command line.
      on_the_cpu: it computes little, and starts no accelerator.
      help, run: other names for the module's ``HELP`` and ``run``.
    """

    module: str
    summary: str
    example: str
    on_the_cpu: bool = True
    help: str = "HELP"
    run: str = "run"


COMMANDS = {
    "run": Command(
        "sdd.run",
        "train by a config, or run a study",
        "sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke",
        on_the_cpu=False,
    ),
    "watch": Command(
        "sdd.live.command",
        "the report of a run or study while it goes on, in the browser",
        "sdd watch runs/smoke",
    ),
    "report": Command(
        "sdd.cli",
        "write the report of a study or a run",
        "sdd report runs/study",
        help="REPORT_HELP",
        run="report",
    ),
    "measure": Command(
        "sdd.measure.command",
        "metrics of rollouts that any program wrote",
        "sdd measure after.jsonl --baseline before.jsonl",
    ),
    "plan": Command(
        "sdd.plan.command",
        "what a config needs on chips that are not there",
        "sdd plan experiments/concept_graph/sdsd.py --topology=v5e:2x2",
    ),
    "doctor": Command(
        "sdd.doctor.command",
        "what this machine has, and whether a config fits it",
        "sdd doctor experiments/concept_graph/sdsd.py",
        on_the_cpu=False,
    ),
    "theory": Command(
        "sdd.theory.command",
        "where training must end, and where it did",
        "sdd theory bandit --follow=0.9",
    ),
    "convert": Command(
        "sdd.weights.command",
        "weights from one kind of folder to another",
        "sdd convert runs/sdsd exported",
    ),
    "init": Command(
        "sdd.scaffold.command",
        "the files of a new method, task or metric, with tests",
        "sdd init my_method",
    ),
    "completion": Command(
        "sdd.completion.command",
        "completion of command lines for bash, zsh and fish",
        'eval "$(sdd completion bash)"',
    ),
}

HELP = """sdd: on-policy self-distillation in JAX, and what it costs in diversity

usage:
  sdd COMMAND ...
  sdd COMMAND --help    its arguments, with examples
  sdd --version

commands, each with an example:
{commands}
Ctrl-C once: a run saves and stops, and everything else stops. Twice: it stops now.

{exit_codes}"""

REPORT_HELP = f"""sdd report: writes the report of a study or of one run

usage:
  sdd report DIR

  DIR   a study's folder (with seed_0/ ...): writes claims.json, figures/ and report.html there;
        or a run's folder (with config.json): writes figures/ and report.html

examples:
  sdd report runs/study
  sdd report runs/study/seed_0/sdsd_k1

{EXIT_CODES}"""


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


def report(args: Sequence[str]) -> int:
    """``sdd report``: returns the exit code.

    Raises:
      UsageError: not exactly one folder.
    """
    if len(args) != 1 or args[0].startswith("-"):
        raise UsageError(f"sdd report takes one folder, and got {' '.join(args) or 'nothing'}")
    folder = Path(args[0])
    if not folder.is_dir():
        raise UsageError(f"there is no folder {args[0]!r}")
    import rich.console

    import sdd.report

    console = rich.console.Console()
    write = (
        sdd.report.write_run_report if (folder / "config.json").exists() else sdd.report.write_study_report
    )
    try:
        write(folder, console)
    except ValueError as error:
        if "\n" in str(error):  # not one of the report's own, which are one line
            raise
        return say(str(error), USAGE)
    print(folder / "report.html")
    return FINISHED
