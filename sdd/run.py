"""``sdd run``: its arguments, and what it starts. Heavy packages are imported when it runs."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from sdd.shell import EXIT_CODES, FINISHED, NONFINITE, STOPPED, USAGE, UsageError, prepare_environment, say

HELP = f"""sdd run: trains by the config of an experiment file, or runs a study

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


def run(args: Sequence[str]) -> int:
    """``sdd run``: returns the exit code.

    Raises:
      UsageError: a missing or unknown argument.
    """
    from sdd import overrides
    from sdd.typed import ConfigError

    changes, rest = overrides.split(args)
    wants_help = "--help" in rest or "-h" in rest
    options = parsed([arg for arg in rest if arg not in ("-h", "--help")], wants_help)
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
                fail(say(str(error), USAGE), str(error))
                return USAGE
    except ConfigError as error:
        return say(str(error), USAGE)


class Options(NamedTuple):
    """What a command line says beside the config's values; see `HELP`."""

    file: str
    workdir: str
    seeds: int | None
    force_cpu_devices: int
    place: tuple[str | None, int | None, int | None]
    lost_after: float


def parsed(args: Sequence[str], wants_help: bool) -> Options:
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
    return Options(
        positional[0], values.workdir or "", values.seeds, values.force_cpu_devices, place, values.lost_after
    )


def _near_flag(name: str, known) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; nearest: --{near[0]}" if near else ""


def _start(module, config, options: Options) -> int:
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
        return say(str(error) or "stopped and saved; the same command goes on from there", STOPPED)
    except loop.NonFiniteError as error:
        return say(str(error), NONFINITE)
    return FINISHED


def _keys_help(file: str, doc: str | None, values: dict[str, object]) -> str:
    """The experiment's docstring, and its config as flags."""
    lines = []
    for key, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        quoted = f"'{text}'" if re.search(r"[\s()\[\]$*]", text) else text
        lines.append(f"  --{key}={quoted}\n")
    return f"{file}: {(doc or '').strip()}\n\nkeys and values:\n{''.join(lines)}"
