"""The command ``sdd``. Heavy packages are imported when a command runs, so that ``--help`` is quick."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sdd.measure.command import HELP as MEASURE_HELP
from sdd.plan.command import HELP as PLAN_HELP
from sdd.run import HELP as RUN_HELP
from sdd.run import run
from sdd.sample.command import EVAL_HELP, SAMPLE_HELP, evaluate, sample
from sdd.shell import EXIT_CODES, FINISHED, INTERRUPTED, USAGE, UsageError, prepare_environment, say
from sdd.theory.command import HELP as THEORY_HELP
from sdd.weights.command import HELP as CONVERT_HELP

HELP = f"""sdd: on-policy self-distillation in JAX, and what it costs in diversity

usage:
  sdd run CONFIG_FILE --workdir=DIR [--config.KEY=VALUE ...]   train, or run a study
  sdd report DIR                                               write the report of a study or a run
  sdd eval RUN [--json]                                        evaluates a checkpoint, as training does
  sdd sample RUN --split=S --out=FILE                          rollouts of a run or a model, graded
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

REPORT_HELP = f"""sdd report: writes the report of a study or of one run

usage:
  sdd report DIR

  DIR   a study's folder (with seed_0/ ...): writes claims.json, figures/ and report.html there;
        or a run's folder (with config.json): writes figures/ and report.html

examples:
  sdd report runs/study
  sdd report runs/study/seed_0/sdsd_k1

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
        "report": Command(REPORT_HELP, report),
        "eval": Command(EVAL_HELP, evaluate),
        "sample": Command(SAMPLE_HELP, sample),
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
    prepare_environment(0)
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


def on_the_cpu(module: str, args: Sequence[str]) -> int:
    """A command that computes little, of a module with ``run(args) -> exit code``; starts no accelerator."""
    prepare_environment(0)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return importlib.import_module(module).run(args)
