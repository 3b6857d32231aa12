"""``sdd doctor``: its arguments, its output, its exit code."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdd.shell import FINISHED, USAGE, Parser, exit_codes, prepare_environment, say

HELP = f"""sdd doctor: what this machine has, and whether a config fits it

usage:
  sdd doctor [CONFIG_FILE] [--workdir=DIR] [--json] [--config.KEY=VALUE ...]

  CONFIG_FILE          as of sdd run; without one only the machine is looked at
  --workdir=DIR        where the run would go, for the room on its disk (default: here)
  --json               one JSON object instead of text; sizes are bytes
  --config.KEY=VALUE   as of sdd run

Nothing is compiled or written. Temporaries are estimated; sdd plan compiles them (docs/plan.md).

examples:
  sdd doctor
  sdd doctor experiments/concept_graph/sdsd.py --config.train.prompts_per_step=64
  sdd doctor experiments/concept_graph/study.py --workdir=runs/study --json

{exit_codes(FINISHED, USAGE, _1="it does not fit, or a package is missing or too old: a line each")}"""

TROUBLE = 1


def run(args: Sequence[str]) -> int:
    """``sdd doctor``: returns the exit code; each problem is one line on stderr."""
    from sdd import overrides
    from sdd.doctor import machine
    from sdd.progress import working
    from sdd.typed import ConfigError

    changes, rest = overrides.split(args)
    options = _parse(rest)
    variables = machine.variables(os.environ)
    prepare_environment(0)
    if not machine.accelerators():  # libtpu, installed for sdd plan, would complain at length
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    software = machine.software()
    found: dict[str, Any] = software | {
        "devices": machine.devices(),
        "host": machine.host(),
        "disk": machine.disk(Path(options.workdir)),
        "cache": machine.cache(os.environ),
        "environment": variables,
        "notes": [],
        "problems": _software_problems(software),
    }
    if found["devices"]["error"]:
        found["problems"].append(f"jax finds no device: {found['devices']['error']}")
    found["notes"] = _notes(found, machine.hidden_accelerator(found["devices"]["platform"], software))
    if options.file and found["devices"]["local"]:
        try:
            with working("building the config's parts"):
                found["config"] = _needs(options.file, changes)
        except ConfigError as error:
            return say(str(error), USAGE)
        from sdd.doctor import needs

        found["problems"] += needs.problems(found["config"], found)
    print(json.dumps(found) if options.json else text_of(found))
    for problem in found["problems"]:
        print(f"sdd: {problem}", file=sys.stderr)
    return TROUBLE if found["problems"] else FINISHED


def _needs(file: str, changes: Sequence[str]) -> dict[str, Any]:
    """Name -> what a run needs; of a study each of its runs, by its own ``resolve`` or `sdd.study`'s."""
    from sdd import config as config_lib
    from sdd import experiment, overrides, study
    from sdd.doctor import needs
    from sdd.typed import ConfigError

    module = experiment.load(file)
    config = overrides.apply(experiment.get_config(module), changes)
    if not hasattr(module, "run"):
        return {"": needs.of_config(config_lib.resolve(config))}
    if hasattr(module, "resolve"):
        runs = module.resolve(config)
    elif "experiments" in config:
        runs = study.resolve(config)
    else:
        raise ConfigError(
            f"{file}: a study without resolve(config) -> name -> RunConfig; valid: one of its runs"
        )
    found = {name: needs.of_config(run) for name, run in runs.items()}
    return {name: need | {"init_from": ""} for name, need in found.items()}  # the study sets it


def _software_problems(software: Mapping[str, Any]) -> list[str]:
    found, python = [], software["python"]
    if not python["fits"]:
        found.append(f"Python {python['version']}; valid: {python['needed']}")
    for name, package in software["packages"].items():
        if not package["fits"]:
            has = package["version"] or "not installed"
            found.append(
                f"{name}: {has}; valid: {package['needed'] or 'any version'}; pip install sdd brings it"
            )
    return found


def _notes(found: Mapping[str, Any], accelerator: str) -> list[str]:
    cache, devices = found["cache"], found["devices"]
    notes = [accelerator] if accelerator else []
    if not cache["used"]:
        notes.append("the compilation cache is off (JAX_ENABLE_COMPILATION_CACHE): every start compiles anew")
    elif not cache["writable"]:
        notes.append(f"{cache['folder']} cannot be written: every start compiles anew")
    if not found["disk"]["writable"]:
        notes.append(f"{found['disk']['folder']} cannot be written")
    if not found["packages"]:
        notes.append("sdd is not installed (its folder is on PYTHONPATH): versions were not compared")
    many = {
        name for name in found["environment"] if name.startswith(("JAX_NUM_PROCESSES", "JAX_COORDINATOR"))
    }
    if many:
        notes.append(f"a run here is one process of several ({', '.join(sorted(many))})")
    if devices["platform"] == "cpu" and devices["local"] > found["host"]["cores"]:
        notes.append(
            f"{devices['local']} devices share {found['host']['cores']} processors: to try a mesh only"
        )
    return notes


def text_of(found: Mapping[str, Any]) -> str:
    """What was found, for people."""
    from sdd.doctor.needs import gb
    from sdd.progress import printable

    devices, host, disk, cache = (found[name] for name in ("devices", "host", "disk", "cache"))
    memory = f", {gb(devices['memory'])} each" if devices["memory"] else ""
    versions = ", ".join(f"{name} {p['version'] or '-'}" for name, p in found["packages"].items())
    lines = [
        f"devices   {devices['local']} x {devices['kind']} ({devices['platform']}){memory}"
        + (f"; {devices['count']} over all processes" if devices["count"] > devices["local"] else ""),
        f"host      {host['cores']} processors, {gb(host['free'])} free of {gb(host['memory'])}",
        f"system    {host['system']}",
        f"disk      {gb(disk['free'])} free in {disk['folder']}",
        f"cache     {cache['programs']} programs, {gb(cache['bytes'])}, in {cache['folder']}",
        f"Python    {found['python']['version']}",
        f"packages  {versions}",
    ]
    for name, extra in found["extras"].items():
        gives = f": {extra['gives']}" if extra["gives"] else ""
        missing = (
            f"no {', '.join(extra['missing'])}; pip install 'sdd[{name}]'"
            if extra["missing"]
            else "installed"
        )
        lines.append(f"extra     {name:11s} {missing}{gives if extra['missing'] else ''}")
    lines += [f"variable  {name}={value}" for name, value in found["environment"].items()]
    for name, need in found.get("config", {}).items():
        lines += _config_lines(name, need, gb)
    lines += [f"note      {note}" for note in found["notes"]]
    lines += [] if found["problems"] else ["fine"]
    return "\n".join(map(printable, lines))


def _config_lines(name: str, need: Mapping[str, Any], gb: Any) -> list[str]:
    held = dict(need["bytes_per_device"])
    phases = held.pop("phases")
    stays = ", ".join(f"{what} {gb(size)}" for what, size in held.items())
    more = ", ".join(f"{what} {gb(size)}" for what, size in phases.items())
    return [
        f"config    {f'{name}: ' if name else ''}{need['parameters']:,} parameters; a device holds {stays}",
        f"          and while it works (estimated): {more}; {gb(need['total'])} at most",
        f"          a checkpoint takes {gb(need['checkpoint'])}, those on the disk {gb(need['checkpoints'])}",
        *([f"          {need['note']}"] if need["note"] else []),
    ]


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser("sdd doctor")
    parser.add_argument("file", metavar="CONFIG_FILE", nargs="?")
    parser.add_argument("--workdir", default=".")
    parser.add_argument("--json", action="store_true")
    return parser.parse_intermixed_args(list(args))
