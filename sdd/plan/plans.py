"""A config on a topology -> a plan: bytes, work, exchanges, time; estimated from shapes, or compiled."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from sdd import mesh as mesh_lib
from sdd.config import RunConfig
from sdd.model import make as make_model
from sdd.plan import compiled, programs, roofline
from sdd.plan.chips import Topology
from sdd.plan.hlo import Collective
from sdd.plan.inputs import Sizes, step_of
from sdd.plan.programs import Bytes
from sdd.plan.work import Work, as_collectives


class Plan(NamedTuple):
    """Attributes:
    config: with the mesh and the number of parts that the plan is of.
    topology: which chips.
    mesh: sizes of the mesh's axes.
    bytes: what stays, and the cache.
    extra: phase -> bytes beside what stays, the cache included where it lives.
    flops: operations of a step over all chips.
    collectives: exchanges of a step.
    phases: times.
    is_compiled: whether temporaries come from the compiler, or from the rule of `temporary_bytes`.
    notes: what a reader should know.
    """

    config: RunConfig
    topology: Topology
    mesh: dict[str, int]
    bytes: Bytes
    extra: dict[str, float]
    flops: float
    collectives: tuple[Collective, ...]
    phases: tuple[roofline.Phase, ...]
    is_compiled: bool
    notes: tuple[str, ...]

    @property
    def larger(self) -> str:
        """The phase that needs more memory."""
        return max(self.extra, key=lambda name: self.extra[name])

    @property
    def total(self) -> float:
        """Bytes of a chip in the phase that needs more."""
        return self.bytes.resident + self.extra[self.larger]

    @property
    def temporary(self) -> float:
        """What is left of the total beside what stays, and beside the cache where that is alive."""
        return self.extra[self.larger] - (0.0 if self.larger == "update" else self.bytes.cache)

    @property
    def fits(self) -> bool:
        return self.total <= self.topology.chip.memory


class Counted(NamedTuple):
    """What is known of a config on a mesh without a compiler."""

    mesh: Mesh
    bytes: Bytes
    sampling: Work
    update: Work


def counted(config: RunConfig, sizes: Sizes, devices: list[Any]) -> Counted:
    """Counts bytes and work.

    Raises:
      ConfigError: a mesh that the devices do not fill, or that does not divide the config's sizes.
    """
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    parts = programs.make_plan_parts(config, sizes, mesh)
    return Counted(
        mesh,
        programs.resident_bytes(config, parts, sizes),
        programs.count_sampler(config, sizes, mesh),
        programs.count_update(config, sizes, mesh),
    )


def estimate(config: RunConfig, sizes: Sizes, topology: Topology, known: Counted) -> Plan:
    """The plan without a compiler: exact but for temporaries."""
    mesh = known.mesh
    sampled = bool(known.sampling.flops)
    extra = {"update": temporary_bytes(config, sizes, mesh)}
    if sampled:
        extra["sampling"] = known.bytes.cache + sampler_temporary_bytes(config, sizes, mesh)
    exchanges = {
        "update": as_collectives(known.update, dict(mesh.shape)),
        "sampling": as_collectives(known.sampling, dict(mesh.shape)),
    }
    return _plan(config, topology, known, extra, exchanges, False, [sizes.note])


def compile_plan(config: RunConfig, sizes: Sizes, topology: Topology, known: Counted) -> Plan:
    """The plan with temporaries and exchanges of the compiled programs."""
    guess, notes = estimate(config, sizes, topology, known), [sizes.note]
    each = {
        "update": compiled.update(config, sizes, known.mesh),
        "sampling": compiled.sampler(config, sizes, known.mesh),
    }
    extra, exchanges = dict(guess.extra), {}
    for name, program in each.items():
        estimated = as_collectives(getattr(known, name), dict(known.mesh.shape))
        exchanges[name] = estimated
        if program is None:
            continue
        stays = known.bytes.resident if name == "update" else known.bytes.parameters
        extra[name] = max(program.bytes - stays, 0.0)
        if program.collectives is None:
            notes.append(f"{name}: exchanges are estimated; there is no compiled program that can be read")
        else:
            exchanges[name] = program.collectives
        if program.unknown_loops:
            notes.append(f"{name}: {program.unknown_loops} loops of unknown length are counted once")
    took = sum(program.seconds for program in each.values() if program)
    notes.append(f"compiled in {took:.0f} s")
    if each["sampling"] and config.model.num_layers > compiled.WHOLE:
        few, more = compiled.FEW
        notes.append(
            f"the sampler was compiled with {few} and {more} layers; the rest follows from the difference"
        )
    if topology.is_gpu:
        notes.append("compiled for CPU devices in place of GPUs: exchanges are of that program")
    return _plan(config, topology, known, extra, exchanges, True, notes)


def _plan(config, topology, known: Counted, extra, exchanges, is_compiled: bool, notes) -> Plan:
    # The optimizer reads and writes what stays, once an update.
    updates = config.train.updates_per_batch
    phases = [
        roofline.phase(
            "update", known.update, 2 * updates * known.bytes.resident, exchanges["update"], topology
        )
    ]
    if known.sampling.flops:
        phases.insert(0, roofline.phase("sampling", known.sampling, 0.0, exchanges["sampling"], topology))
    joined: dict[tuple[str, str, int], float] = {}
    for c in (c for each in exchanges.values() for c in each):
        joined[c.kind, c.axis, c.ways] = joined.get((c.kind, c.axis, c.ways), 0.0) + c.bytes
    together = [Collective(kind, axis, size, ways) for (kind, axis, ways), size in joined.items()]
    return Plan(
        config,
        topology,
        dict(known.mesh.shape),
        known.bytes,
        extra,
        known.update.flops + known.sampling.flops,
        tuple(sorted(together, key=lambda c: -c.bytes)),
        tuple(phases),
        is_compiled,
        tuple(filter(None, notes)),
    )


def temporary_bytes(config: RunConfig, sizes: Sizes, mesh: Mesh) -> float:
    """The rule for temporaries of an update, in bytes of a chip.

    Gradients in float32 as the parameters are split, twice with several parts; for each layer what the
    backward pass keeps of each token that the student reads (its residual stream under remat "full", all
    that the layer makes under "none"); the gathered matrices and the working set of one layer; two arrays of
    a block's attention scores; hidden states of student and teachers; six arrays of a block's logits for
    student and each teacher.
    """
    model, tensor = config.model, mesh.shape["tensor"]
    width = 4 if model.compute_dtype == "float32" else 2
    step, options = step_of(config), config.step.options
    ways = mesh_lib.row_multiple(mesh) * config.train.micro_batches
    rows = config.train.prompts_per_step * step.rows_per_prompt(config.train.group_size) / ways
    teachers = getattr(options, "num_demos", 0)
    longest = (sizes.demonstration_context if teachers else sizes.context) + sizes.response
    made = 2 * model.width + (model.num_heads * 2 + model.num_kv_heads * 2) * model.head_dim / tensor
    made += 3 * model.mlp_dim / tensor
    kept = model.width if model.remat == "full" else made
    read = rows * sizes.response + rows / config.train.group_size * sizes.context
    saved = model.num_layers * read * kept * width
    working = rows * (sizes.context + sizes.response) * made * width
    hidden = 2 * (1 + teachers) * rows * sizes.response * model.width * width
    block = min(getattr(options, "block_size", 0) or sizes.response, sizes.response)
    split = tensor if sizes.vocab_size % tensor == 0 else 1
    logits = 6 * (1 + teachers) * rows * block * sizes.vocab_size / split * 4
    queries = min(model.attention_block or longest, longest)
    scores = 2 * rows * model.num_heads / tensor * queries * longest * 4
    gradients, layer = _parameter_bytes(config, sizes, mesh)
    copies = 1 if config.train.micro_batches == 1 else 2
    return gradients * copies + layer * width / 4 + saved + working + hidden + logits + scores


def sampler_temporary_bytes(config: RunConfig, sizes: Sizes, mesh: Mesh) -> float:
    """The rule for temporaries of the sampler: parameters, gathered and cast, and six arrays of logits."""
    width = 4 if config.model.compute_dtype == "float32" else 2
    params = _abstract_parameters(config, sizes, mesh)
    gathered = sum(x.size for x in jax.tree.leaves(params)) * width / mesh.shape["tensor"]
    ways = mesh_lib.row_multiple(mesh)
    rows = config.train.prompts_per_step * config.train.group_size
    rows = min(config.sampling.slots or rows, rows)
    prefill = config.train.prompts_per_step * sizes.context * config.model.width * 8 * width / ways
    return gathered + 6 * rows * sizes.vocab_size * 4 / ways + prefill


def _parameter_bytes(config: RunConfig, sizes: Sizes, mesh: Mesh) -> tuple[float, float]:
    """Float32 bytes of a chip's part of all parameters, and of one gathered layer with the embeddings."""
    params = _abstract_parameters(config, sizes, mesh)
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    own = sum(4.0 * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(params))
    layer = size(params["layers"]) / config.model.num_layers + size(params["shell"])
    return own, 4.0 * layer / mesh.shape["tensor"]


def _abstract_parameters(config: RunConfig, sizes: Sizes, mesh: Mesh) -> Any:
    model = make_model(config.model, sizes.vocab_size)
    with jax.set_mesh(mesh):
        return mesh_lib.abstract(lambda: model.init(jax.random.key(0)))


def with_mesh(config: RunConfig, shape: dict[str, int], micro_batches: int) -> RunConfig:
    """The config on another mesh, reading a batch in another number of parts."""
    data, fsdp, tensor = (shape[axis] for axis in mesh_lib.AXES)
    mesh = dataclasses.replace(config.mesh, data=data, fsdp=fsdp, tensor=tensor)
    train = dataclasses.replace(config.train, micro_batches=micro_batches)
    return dataclasses.replace(config, mesh=mesh, train=train)
