"""The command ``sdd``. Heavy packages are imported when a command runs, so that ``--help`` is quick."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sdd.measure.command import HELP as MEASURE_HELP
from sdd.plan.command import HELP as PLAN_HELP
from sdd.report.command import HELP as REPORT_HELP
from sdd.run import HELP as RUN_HELP
from sdd.run import run
from sdd.shell import EXIT_CODES, FINISHED, INTERRUPTED, USAGE, UsageError, prepare_environment, say
from sdd.theory.command import HELP as THEORY_HELP
from sdd.weights.command import HELP as CONVERT_HELP

HELP = f"""sdd: on-policy self-distillation in JAX, and what it costs in diversity

usage:
  sdd run CONFIG_FILE --workdir=DIR [--config.KEY=VALUE ...]   train, or run a study
  sdd report RUN... [--out=FILE]                               the page of a study, of a run, or of several
  sdd measure FILE... [--baseline FILE...]                     metrics of rollouts that any program wrote
  sdd plan CONFIG_FILE --topology=T [--fit] [--json]           what it needs on chips that are not there
  sdd theory START_RUN END_RUN... --out=DIR                    where training must end, and where it did
  sdd convert SRC DST                                          weights from one kind of folder to another

examples:
  sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke
  sdd run experiments/concept_graph/study.py --workdir=runs/study --seeds=2
  sdd report runs/study
  sdd measure after.jsonl --baseline before.jsonl
  sdd convert runs/sdsd exported

More of each: sdd COMMAND --help. Version: sdd --version.

{EXIT_CODES}"""


class Command(NamedTuple):
    """A command: what ``--help`` prints, and what runs it and returns the exit code."""

    help: str
    run: Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code; see ``sdd --help``.

    Args:
      argv: arguments without the program's name; those of the process when None.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "run": Command(RUN_HELP, run),
        "report": Command(REPORT_HELP, partial(on_the_cpu, "sdd.report.command")),
        "measure": Command(MEASURE_HELP, partial(on_the_cpu, "sdd.measure.command")),
        "plan": Command(PLAN_HELP, partial(on_the_cpu, "sdd.plan.command")),
        "theory": Command(THEORY_HELP, partial(on_the_cpu, "sdd.theory.command")),
        "convert": Command(CONVERT_HELP, partial(on_the_cpu, "sdd.weights.command")),
    }
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if args else sys.stderr)
        return FINISHED if args else USAGE
    if args[0] == "--version":
        from sdd import __version__

        print(f"sdd {__version__}")
        return FINISHED
    name, rest = args[0], args[1:]
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"nearest: {near[0]}; " if near else ""
        return say(f"unknown command {name!r}; {hint}valid: {', '.join(commands)} (see sdd --help)", USAGE)
    if rest in (["--help"], ["-h"]):
        print(commands[name].help, end="")
        return FINISHED
    if argv is None:  # the process is ours: orbax leaves coroutines behind when a read fails
        sys.unraisablehook = lambda unraisable: None
    try:
        return commands[name].run(rest)
    except UsageError as error:
        return say(f"{error} (see sdd {name} --help)", USAGE)
    except KeyboardInterrupt:
        return say("interrupted", INTERRUPTED)


def on_the_cpu(module: str, args: Sequence[str]) -> int:
    """A command that computes little, of a module with ``run(args) -> exit code``; starts no accelerator."""
    prepare_environment(0)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return importlib.import_module(module).run(args)
