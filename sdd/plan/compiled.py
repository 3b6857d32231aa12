"""Programs compiled for chips that are not there, and what the compiler says of them."""

import importlib.util
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from sdd.config import ConfigError, RunConfig
from sdd.plan import hlo, work
from sdd.plan.chips import Topology
from sdd.plan.hlo import Collective
from sdd.plan.inputs import Sizes, with_layers
from sdd.plan.programs import loop_trips, make_plan_parts, trace_sampler, trace_update

WHOLE = 4  # layers up to which the sampler, which writes its layers out, is compiled as it is
FEW = (1, 3)  # layers with which it is compiled otherwise; the rest follows from the difference

_TOO_LARGE = re.compile(r"memory required for HLO temporaries \(([\d.]+)([KMGT])\) exceeds")
_UNITS = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


class Program(NamedTuple):
    """Attributes:
    bytes: of a chip: arguments, results that are no arguments, temporaries.
    arguments: bytes of the arguments among them.
    collectives: what is exchanged; None where the compiler's program cannot be read.
    unknown_loops: loops with exchanges whose trip count is not known.
    seconds: that compiling took.
    """

    bytes: float
    arguments: float
    collectives: tuple[Collective, ...] | None
    unknown_loops: int
    seconds: float


def devices_of(topology: Topology) -> list[Any]:
    """Devices to compile for: those of the topology, or as many of this machine's for GPUs.

    Raises:
      ConfigError: no libtpu, or no such topology.
    """
    if topology.is_gpu:
        if len(jax.devices()) < topology.chips:
            raise ConfigError(
                f"--topology={topology.name}: {topology.chips} CPU devices stand in for GPUs, and jax has "
                f"started with {len(jax.devices())}"
            )
        return jax.devices()[: topology.chips]
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology={topology.name}: the compiler for TPUs is not installed; pip install 'sdd[plan]'"
        )
    from jax.experimental import topologies

    try:
        return list(
            topologies.get_topology_desc(
                platform="tpu",
                topology_name=f"{topology.kind}:{'x'.join(map(str, topology.shape))}",
                num_slices=topology.slices,
            ).devices
        )
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigError(f"--topology={topology.name}: no such topology ({text})") from None


def update(config: RunConfig, sizes: Sizes, mesh: Any) -> Program:
    """The training step."""
    traced = trace_update(config, make_plan_parts(config, sizes, mesh), sizes)
    return compile_traced(traced, dict(mesh.shape), ())


def sampler(config: RunConfig, sizes: Sizes, mesh: Any) -> Program | None:
    """The sampler; None for a method without. Of many layers few are compiled, and the rest follows."""

    def of(num_layers: int) -> Program | None:
        fewer = with_layers(config, num_layers)
        parts = make_plan_parts(fewer, sizes, mesh)
        traced = trace_sampler(fewer, parts, sizes)
        trips = loop_trips(config, sizes, parts.sampling_mesh)
        return traced and compile_traced(traced, dict(parts.sampling_mesh.shape), trips)

    layers = config.model.num_layers
    if layers <= WHOLE:
        return of(layers)
    few, more = of(FEW[0]), of(FEW[1])
    return few and more and _extended(few, more, (layers - FEW[0]) / (FEW[1] - FEW[0]))


def _extended(few: Program, more: Program, times: float) -> Program:
    """``few + times * (more - few)``, the same of each exchange."""

    def along(a: float, b: float) -> float:
        return a + times * (b - a)

    joined = None
    if few.collectives is not None and more.collectives is not None:
        before = {(c.kind, c.axis, c.ways): c.bytes for c in few.collectives}
        after = {(c.kind, c.axis, c.ways): c.bytes for c in more.collectives}
        each = {key: along(before.get(key, 0.0), after.get(key, 0.0)) for key in before | after}
        joined = tuple(Collective(kind, axis, size, ways) for (kind, axis, ways), size in each.items())
    return Program(
        along(few.bytes, more.bytes),
        along(few.arguments, more.arguments),
        joined,
        more.unknown_loops,
        few.seconds + more.seconds,
    )


def compile_traced(traced: Any, axes: dict[str, int], trips: Sequence[float]) -> Program:
    """Compiles a traced program; one that is too large for the chip is told from the compiler's error.

    Args:
      traced: of ``jax.jit(f).trace(...)``.
      axes: sizes of the mesh's axes.
      trips: see `hlo.collectives`.
    """
    began = time.perf_counter()
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if (found := _TOO_LARGE.search(str(error))) is None:
            raise
        arguments = work.argument_bytes(traced.jaxpr.jaxpr, axes)
        needed = arguments + float(found[1]) * _UNITS[found[2]]
        return Program(needed, arguments, None, 0, time.perf_counter() - began)
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes  # donated arguments hold the rest
    total = memory.argument_size_in_bytes + max(new, 0) + memory.temp_size_in_bytes
    try:
        parsed = hlo.collectives(compiled.as_text(), axes, trips)
    except jax.errors.JaxRuntimeError:  # an operation that this jax cannot print
        return Program(total, memory.argument_size_in_bytes, None, 0, seconds)
    return Program(total, memory.argument_size_in_bytes, parsed.collectives, parsed.unknown_loops, seconds)
