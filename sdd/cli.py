"""The command ``sdd``. Heavy packages are imported when a command runs, so that ``--help`` is quick."""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sdd.measure.command import HELP as MEASURE_HELP
from sdd.plan.command import HELP as PLAN_HELP
from sdd.weights.command import HELP as CONVERT_HELP

FINISHED, FAILED, USAGE, NONFINITE, STOPPED, INTERRUPTED = 0, 1, 2, 70, 75, 130

EXIT_CODES = """exit codes:
  0    finished
  1    failed, with a traceback
  2    bad usage or config: one line says what is valid
  3    measured, and a --fail-if condition holds
  70   stopped after too many updates in a row that were not finite
  75   stopped by SIGTERM or Ctrl-C, after saving: the same command goes on from there
  76   another process of the run is gone: the same command, started anew by all, goes on
  130  interrupted before it could save
"""

HELP = f"""sdd: on-policy self-distillation in JAX, and what it costs in diversity

usage:
  sdd run CONFIG_FILE --workdir=DIR [--config.KEY=VALUE ...]   train, or run a study
  sdd report DIR                                               write the report of a study or a run
  sdd measure FILE... [--baseline FILE...]                     metrics of rollouts that any program wrote
  sdd plan CONFIG_FILE --topology=T [--fit] [--json]           what it needs on chips that are not there
  sdd convert SRC DST                                          weights from one kind of folder to another

examples:
  sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke
  sdd run experiments/concept_graph/study.py --workdir=runs/study --seeds=2
  sdd report runs/study
  sdd measure after.jsonl --baseline before.jsonl
  sdd convert runs/sdsd exported

More of each: sdd COMMAND --help. Version: sdd --version.

{EXIT_CODES}"""

RUN_HELP = f"""sdd run: trains by the config of an experiment file, or runs a study

usage:
  sdd run CONFIG_FILE --workdir=DIR [--config.KEY=VALUE ...] [--seeds=N] [--force_cpu_devices=N]

  CONFIG_FILE            a Python file with get_config() -> ConfigDict; if it also defines
                         run(config, workdir, seeds), as studies do, that is called
  --workdir=DIR          the run's or study's folder; a run that was stopped goes on where it was
  --config.KEY=VALUE     changes a value of the config; tuples: --config.eval.ks=1,2,4;
                         switches: --config.writers.tensorboard, --noconfig.writers.progress
  --config.step.name=M   another method, with its own defaults (the same goes for config.task.name)
  --seeds=N              studies only: how many seeds (default 1)
  --force_cpu_devices=N  run on the CPU, split into N devices, to try a mesh without accelerators

one of several processes, all started by the same command; SLURM (srun), Open MPI and TPU hosts tell jax
where a process stands, and launch/ starts them:
  --coordinator=HOST:PORT  where process 0 is; or JAX_COORDINATOR_ADDRESS
  --num_processes=N        how many; or JAX_NUM_PROCESSES
  --process_id=I           which this is, from 0 on; or JAX_PROCESS_ID
  --lost_after=SECONDS     of silence, after which a process is lost and the others end (default 60)

sdd run CONFIG_FILE --help lists the config's keys and values.

examples:
  sdd run experiments/concept_graph/warm_start.py --workdir=runs/warm
  sdd run experiments/concept_graph/sdsd.py --workdir=runs/sdsd --config.train.init_from=runs/warm
  sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke --config.step.num_demos=2
  sdd run experiments/concept_graph/smoke.py --workdir=runs/mesh \\
      --force_cpu_devices=4 --config.mesh.data=2 --config.mesh.fsdp=2

Compiled programs are kept in $JAX_COMPILATION_CACHE_DIR, by default sdd/jax in the user's cache folder.

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


class UsageError(Exception):
    """A command line that means nothing: one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit code; see ``sdd --help``.

    Args:
      argv: arguments without the program's name; those of the process when None.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "run": Command(RUN_HELP, run),
        "report": Command(REPORT_HELP, report),
        "measure": Command(MEASURE_HELP, partial(on_the_cpu, "sdd.measure.command")),
        "plan": Command(PLAN_HELP, partial(on_the_cpu, "sdd.plan.command")),
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
        return _say(f"unknown command {name!r}; {hint}valid: {', '.join(commands)} (see sdd --help)", USAGE)
    if rest in (["--help"], ["-h"]):
        print(commands[name].help, end="")
        return FINISHED
    if argv is None:  # the process is ours: orbax leaves coroutines behind when a read fails
        sys.unraisablehook = lambda unraisable: None
    try:
        return commands[name].run(rest)
    except UsageError as error:
        return _say(f"{error} (see sdd {name} --help)", USAGE)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def run(args: Sequence[str]) -> int:
    """``sdd run``: returns the exit code.

    Raises:
      UsageError: a missing or unknown argument.
    """
    from sdd import overrides
    from sdd.typed import ConfigError

    changes, rest = overrides.split(args)
    wants_help = "--help" in rest or "-h" in rest
    options = _run_options([arg for arg in rest if arg not in ("-h", "--help")], wants_help)
    prepare_environment(options.force_cpu_devices)
    try:
        from sdd import experiment, processes

        module = experiment.load(options.file)
        config = overrides.apply(experiment.get_config(module), changes)
        if wants_help:
            print(_keys_help(options.file, module.__doc__, overrides.flatten(config)), end="")
            return FINISHED
        with processes.joined(processes.place(processes.Place(*options.place)), options.lost_after) as fail:
            try:
                return _start(module, config, options)
            except ConfigError as error:
                fail(_say(str(error), USAGE), str(error))
                return USAGE
    except ConfigError as error:
        return _say(str(error), USAGE)


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
        return _say(str(error), USAGE)
    print(folder / "report.html")
    return FINISHED


def on_the_cpu(module: str, args: Sequence[str]) -> int:
    """A command that computes little, of a module with ``run(args) -> exit code``; starts no accelerator."""
    prepare_environment(0)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return importlib.import_module(module).run(args)


def prepare_environment(force_cpu_devices: int) -> None:
    """Sets what must be set before jax is imported; variables that are set already stay.

    Args:
      force_cpu_devices: how many devices the CPU is split into; 0 leaves devices alone.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdd" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes on its own start; errors still show
    if force_cpu_devices:
        flag = "--xla_force_host_platform_device_count"
        others = [f for f in os.environ.get("XLA_FLAGS", "").split() if f.split("=")[0] != flag]
        os.environ["XLA_FLAGS"] = " ".join([*others, f"{flag}={force_cpu_devices}"])
        os.environ["JAX_PLATFORMS"] = "cpu"


class _RunOptions(NamedTuple):
    file: str
    workdir: str
    seeds: int | None
    force_cpu_devices: int
    place: tuple[str | None, int | None, int | None]
    lost_after: float


def _run_options(args: Sequence[str], wants_help: bool) -> _RunOptions:
    """Parses what is not an override of the config."""
    from absl import flags

    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_integer("seeds", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("force_cpu_devices", 0, "", lower_bound=0, flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    flags.DEFINE_float("lost_after", 60.0, "", lower_bound=1.0, flag_values=values)
    values.set_gnu_getopt(True)
    try:
        positional = values(["sdd", *args])[1:]
    except flags.UnrecognizedFlagError as error:
        near = f"; did you mean --config.{error.flagname}=...?" if "." in error.flagname else ""
        listed = ", ".join(f"--{name}" for name in values if name != "?") + ", --config.KEY=VALUE"
        raise UsageError(
            f"unknown flag --{error.flagname}{near or _near_flag(error.flagname, values)}; valid: {listed}"
        ) from None
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None
    if not positional:
        raise UsageError(
            "sdd run needs a config file, for example: sdd run experiments/concept_graph/smoke.py"
        )
    if len(positional) > 1:
        raise UsageError(f"unexpected argument {positional[1]!r}; values of the config: --config.KEY=VALUE")
    if not values.workdir and not wants_help:
        raise UsageError("sdd run needs a folder, for example: --workdir=runs/try")
    place = (values.coordinator, values.num_processes, values.process_id)
    return _RunOptions(
        positional[0], values.workdir or "", values.seeds, values.force_cpu_devices, place, values.lost_after
    )


def _near_flag(name: str, known) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; nearest: --{near[0]}" if near else ""


def _start(module, config, options: _RunOptions) -> int:
    """Runs a loaded experiment."""
    from sdd import config as config_lib
    from sdd.typed import ConfigError

    study = getattr(module, "run", None)
    if study is None:
        if options.seeds is not None:
            raise ConfigError(
                f"--seeds={options.seeds}: {options.file} is no study (it defines no run(config, workdir, "
                f"seeds)); valid: --config.seed={config.get('seed', 0)} or another, one run a --workdir"
            )
        config = config_lib.resolve(config)
    import jax

    from sdd import allocator, loop

    if jax.default_backend() == "cpu":
        allocator.keep_freed_memory()
    try:
        if study is None:
            loop.run(config, options.workdir)
        else:
            study(config, options.workdir, options.seeds or 1)
    except loop.Stopped as error:
        return _say(str(error) or "stopped and saved; the same command goes on from there", STOPPED)
    except loop.NonFiniteError as error:
        return _say(str(error), NONFINITE)
    return FINISHED


def _keys_help(file: str, doc: str | None, values: dict[str, object]) -> str:
    """The experiment's docstring, and its config as flags."""
    lines = []
    for key, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        quoted = f"'{text}'" if re.search(r"[\s()\[\]$*]", text) else text
        lines.append(f"  --{key}={quoted}\n")
    return f"{file}: {(doc or '').strip()}\n\nkeys and values:\n{''.join(lines)}"


def _say(message: str, code: int) -> int:
    """One line on stderr; returns the exit code."""
    print(f"sdd: {message}", file=sys.stderr)
    return code
