"""What a config needs on the devices that are here, in bytes, and whether that is there.

The arithmetic is that of `sdd.plan`: parameters, optimizer, teacher and caches are exact, temporaries follow
a rule (docs/plan.md); nothing is compiled.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from sdd import initial
from sdd import mesh as mesh_lib
from sdd.config import RunConfig, check_lengths
from sdd.plan import inputs, plans, programs


def of_config(config: RunConfig) -> dict[str, Any]:
    """Bytes of a device in each phase, and of checkpoints.

    Returns:
      "parameters" (their number), "bytes_per_device" (what stays, and "phases": the temporaries and caches of
      each), "total" (of the largest phase), "checkpoint", "checkpoints" (as many as are kept, and the one
      that is being written), "init_from", "note".

    Raises:
      ConfigError: the config does not fit the devices' number or the task.
    """
    sizes = inputs.sizes_of(config)
    check_lengths(config, sizes.context, sizes.response, sizes.demonstration_context)
    parts = programs.make_plan_parts(config, sizes, mesh_lib.make_mesh(config.mesh))
    held = programs.resident_bytes(config, parts, sizes)
    with jax.set_mesh(parts.mesh):
        state = initial.abstract_state(parts)
    phases = {"update": plans.temporary_bytes(config, sizes, parts.mesh)}
    sampler = plans.sampler_temporary_bytes(config, sizes, parts.sampling_mesh)
    if parts.step.source == "policy":
        phases["sampling"] = held.cache + sampler
    rows = min(config.eval.rows_per_call, config.eval.final_num_prompts * config.eval.final_num_samples)
    prompts = math.ceil(rows / config.eval.final_num_samples)
    tokens = rows * sizes.response + prompts * sizes.context
    phases["evaluation"] = programs.cache_bytes(config, parts.sampling_mesh, tokens) + sampler
    checkpoint = _bytes(state)
    stays = {"parameters": held.parameters, "optimizer": held.optimizer, "teacher": held.teacher}
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "bytes_per_device": {name: round(size) for name, size in stays.items()}
        | {"phases": {name: round(size) for name, size in phases.items()}},
        "total": round(held.resident + max(phases.values())),
        "checkpoint": checkpoint,
        "checkpoints": checkpoint * (config.train.keep_checkpoints + 1),
        "init_from": config.train.init_from,
        "note": sizes.note,
    }


def problems(needs: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]) -> list[str]:
    """One line for each thing that a run, or a study's runs one after the other, would lack.

    Args:
      needs: name of the run ("" where there is one) -> `of_config`.
      machine: "devices", "host" and "disk", see `sdd.doctor.machine`.
    """
    found, devices = [], machine["devices"]
    on_host = devices["memory"] is None  # the devices are the host's processors, and share its memory
    for name, need in needs.items():
        where = f"{name}: " if name else ""
        size = need["total"] * (devices["local"] if on_host else 1)
        there = machine["host"]["free"] if on_host else devices["memory"]
        if size > there:
            what = "free on this machine" if on_host else "a device"
            found.append(
                f"{where}needs {gb(size)}, of {gb(there)} {what}; valid: what sdd plan --fit finds, "
                "fewer --config.train.prompts_per_step, a smaller model, --config.model.remat=full"
            )
        start = need["init_from"]
        if start and "://" not in start and not Path(start).exists():
            found.append(f"{where}config.train.init_from={start!r}: nothing is there")
    room, free = sum(need["checkpoints"] for need in needs.values()), machine["disk"]["free"]
    if room > free:
        found.append(
            f"checkpoints take {gb(room)}, of {gb(free)} free in {machine['disk']['folder']}; "
            "valid: another --workdir, or fewer --config.train.keep_checkpoints"
        )
    return found


def gb(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
