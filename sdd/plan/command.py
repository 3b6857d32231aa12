"""``sdd plan``: its arguments, its output, its exit code."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from sdd.terminal import shown

HELP = """sdd plan: what a config needs on a TPU or GPU topology, and the shortest time of its step

usage:
  sdd plan CONFIG_FILE --topology=T [--slices=N] [--fit] [--json] [--config.KEY=VALUE ...]

  CONFIG_FILE            as of sdd run; no data set, no weights and no accelerator need be there
  --topology=T           v5p:4x4x4, v5e:8x8, v6e:4x4 (compiled for TPUs: pip install 'sdd[plan]');
                         gpu:h100:8 (no compiler for GPUs here: as many CPU devices stand in)
  --slices=N             N such slices, joined by the data centre's network (default 1)
  --fit                  tries meshes and numbers of micro-batches, and compiles the fastest that fits
  --json                 one JSON object instead of text
  --config.KEY=VALUE     as of sdd run

Responses are thought to have the longest length. What the numbers mean: docs/plan.md.

examples:
  sdd plan experiments/concept_graph/sdsd.py --topology=v5e:2x2
  sdd plan experiments/science_qa/qwen3_8b_sdsd.py --topology=v5p:2x4x4 --fit
  sdd plan experiments/concept_graph/grpo.py --topology=gpu:h100:8 --json

exit codes:
  0    it fits
  1    it does not fit: one line says what to change
  2    bad usage or config: one line says what is valid
"""

FITS, DOES_NOT_FIT, USAGE = 0, 1, 2

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is compiled for other chips cannot be read back
    "TPU_SKIP_MDS_QUERY": "1",  # there is no TPU to ask
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # none is used, so several processes may load the compiler
    # Without these libtpu writes that it does not know where it is.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


class _Options(NamedTuple):
    file: str
    topology: str
    slices: int
    fit: bool
    json: bool


def run(args: Sequence[str]) -> int:
    """``sdd plan``: returns the exit code; errors are one line on stderr."""
    from sdd.typed import ConfigError

    try:
        return _run(args)
    except ConfigError as error:
        print(f"sdd: {shown(error)}", file=sys.stderr)
        return USAGE


def _run(args: Sequence[str]) -> int:
    from sdd import overrides
    from sdd.plan import chips

    changes, rest = overrides.split(args)
    options = _parse(rest)
    topology = chips.parse(options.topology, options.slices)
    prepare_environment(topology.chips if topology.is_gpu else 0)
    from sdd import config as config_lib
    from sdd import experiment
    from sdd.plan import advice, compiled, inputs, plans, search
    from sdd.progress import working

    raw = experiment.get_config(experiment.load(options.file))
    config = config_lib.resolve(overrides.apply(raw, changes))
    sizes = inputs.sizes_of(config)
    config_lib.check_lengths(config, sizes.context, sizes.response, sizes.demonstration_context)
    devices = compiled.devices_of(topology)
    with working("compiling" if not options.fit else "trying meshes, and compiling the best"):
        if options.fit:
            found = search.search(config, sizes, topology, devices)
            best = found.plans[0]
        else:
            found = None
            known = _counted(config, sizes, devices)
            best = plans.compile_plan(config, sizes, topology, known)
    if options.json:
        print(json.dumps(as_json(best) | ({"plans": [_row(p) for p in found.plans]} if found else {})))
    else:
        print(text_of(best), end="")
        if found:
            print(_table(found), end="")
    if best.fits:
        return FITS
    print(f"sdd: {advice.advise(best, sizes, devices)}", file=sys.stderr)
    return DOES_NOT_FIT


def _counted(config: Any, sizes: Any, devices: list[Any]) -> Any:
    from sdd.plan import plans
    from sdd.typed import ConfigError

    try:
        return plans.counted(config, sizes, devices)
    except ConfigError as error:
        raise ConfigError(f"{error}; on {len(devices)} chips (--fit finds a mesh)") from None


def prepare_environment(cpu_devices: int) -> None:
    """Sets what must be set before jax starts; variables that are set already stay.

    Args:
      cpu_devices: how many devices the CPU is split into; 0 leaves them alone.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    flag = "--xla_force_host_platform_device_count"
    if cpu_devices and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={cpu_devices}".strip()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        from sdd.typed import ConfigError

        raise ConfigError(f"{message} (see sdd plan --help)")


def _parse(args: Sequence[str]) -> _Options:
    parser = _Parser(prog="sdd plan", add_help=False, allow_abbrev=False)
    parser.add_argument("file", metavar="CONFIG_FILE")
    parser.add_argument("--topology", required=True)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", action="store_true")
    return _Options(**vars(parser.parse_intermixed_args(list(args))))


def as_json(plan: Any) -> dict[str, Any]:
    """A plan as plain values; bytes are of one chip."""
    from sdd.plan import roofline

    seconds, bound_by = roofline.joined(plan.phases)
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "bytes_per_chip": {
            "parameters": round(plan.bytes.parameters),
            "optimizer": round(plan.bytes.optimizer),
            "teacher": round(plan.bytes.teacher),
            "cache": round(plan.bytes.cache),
            "temporary": round(plan.temporary),
            "total": round(plan.total),
            "available": round(plan.topology.chip.memory),
        },
        "fits": plan.fits,
        "flops_per_step": plan.flops,
        "collectives": [{"kind": c.kind, "axis": c.axis, "bytes": round(c.bytes)} for c in plan.collectives],
        "step_seconds_roofline": seconds,
        "bound_by": bound_by,
        "slices": plan.topology.slices,
        "mesh": plan.mesh,
        "micro_batches": plan.config.train.micro_batches,
        "larger": plan.larger,
        "phases": {phase.name: phase.seconds_of for phase in plan.phases},
        "compiled": plan.is_compiled,
        "notes": list(plan.notes),
    }


def text_of(plan: Any) -> str:
    """A plan for people."""
    values = as_json(plan)
    gb = {name: f"{size / 1e9:9.4g}" for name, size in values["bytes_per_chip"].items()}
    how = "compiled" if plan.is_compiled else "estimated"
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    lines = [
        f"{values['topology']}{f' x {plan.topology.slices} slices' if plan.topology.slices > 1 else ''}: "
        f"{values['chips']} chips, mesh {mesh}, micro_batches {values['micro_batches']}",
        "GB a chip",
        f"  parameters  {gb['parameters']}",
        f"  optimizer   {gb['optimizer']}",
        f"  teacher     {gb['teacher']}",
        f"  cache       {gb['cache']}  while sampling",
        f"  temporary   {gb['temporary']}  {how}; in {plan.larger}, which needs more",
        f"  total       {gb['total']}  of {plan.topology.chip.memory / 1e9:g}: "
        + ("fits" if plan.fits else "does not fit"),
        f"operations a step  {plan.flops:.4g}",
        "exchanges a step, GB a chip",
        *(
            f"  {c.kind:18s} {c.axis:18s} {c.bytes / 1e9:9.4g}"
            for c in plan.collectives
            if c.bytes >= 1e-3 * plan.collectives[0].bytes
        ),
        f"shortest step  {values['step_seconds_roofline']:.4g} s, bound by {values['bound_by']}",
    ]
    for phase in plan.phases:
        parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in phase.seconds_of.items())
        lines.append(f"  {phase.name:9s} {parts}")
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)]) + "\n"


def _row(plan: Any) -> dict[str, Any]:
    values = as_json(plan)
    keys = ("mesh", "micro_batches", "fits", "step_seconds_roofline", "bound_by", "compiled")
    return {key: values[key] for key in keys} | {"total": values["bytes_per_chip"]["total"]}


def _table(found: Any, most: int = 10) -> str:
    """The best plans of a search, one a line."""
    lines = [
        f"tried {found.tried} meshes and numbers of parts ({found.refused} refused); those that fit by time:",
        f"  {'data':>5} {'fsdp':>5} {'tensor':>6} {'parts':>5} {'GB':>9} {'step s':>9}  bound by",
    ]
    for plan in found.plans[:most]:
        row = _row(plan)
        mesh = row["mesh"]
        how = ("compiled" if plan.is_compiled else "estimated") + ("" if plan.fits else ", does not fit")
        lines.append(
            f"  {mesh['data']:5d} {mesh['fsdp']:5d} {mesh['tensor']:6d} {row['micro_batches']:5d} "
            f"{row['total'] / 1e9:9.3f} {row['step_seconds_roofline']:9.4g}  {row['bound_by']} ({how})"
        )
    return "\n".join(lines) + "\n"
