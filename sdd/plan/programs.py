"""The very programs of a run, traced from shapes: the training step and the sampler."""

import functools
import math
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from sdd import initial, sampling
from sdd import mesh as mesh_lib
from sdd.build import Parts, check_mesh, make_optimizer, move
from sdd.config import RunConfig
from sdd.model import make as make_model
from sdd.plan import work
from sdd.plan.inputs import Sizes, abstract_batch, abstract_contexts, step_of, stub_task, with_layers
from sdd.sampling.loop import capacities
from sdd.steps.base import make_train_step
from sdd.types import TrainState


class Bytes(NamedTuple):
    """Bytes of a chip that stay through a run, and those of the sampler's cache."""

    parameters: float
    optimizer: float
    teacher: float
    cache: float

    @property
    def resident(self) -> float:
        return self.parameters + self.optimizer + self.teacher


def make_plan_parts(config: RunConfig, sizes: Sizes, mesh: Mesh) -> Parts:
    """The parts of a run that its step is made of, with a task of longest prompts.

    Raises:
      ConfigError: sizes that the mesh, or that of sampling, does not divide.
    """
    sampling_mesh = mesh_lib.sampling_mesh(config.mesh, mesh)
    for each in (mesh, sampling_mesh):
        check_mesh(config, each)
    step = step_of(config)
    model = make_model(config.model, sizes.vocab_size)
    updates = config.train.updates_per_batch
    optimizer, schedule = make_optimizer(config.optimizer, config.train.num_steps * updates)
    sampler = sampling.make(
        model,
        config.sampling,
        group_size=config.train.group_size,
        max_tokens=sizes.response,
        stop_ids=sizes.stop_ids,
    )
    return Parts(
        mesh=mesh,
        sampling_mesh=sampling_mesh,
        task=stub_task(sizes),
        step=step,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        train_step=make_train_step(step, model, optimizer, updates, config.train.micro_batches),
        sampler=sampler,
        eval_sampler=lambda num_samples: sampler,
        for_sampling=functools.partial(move, model, mesh, sampling_mesh),
        embedders=(),
        information=None,
    )


def trace_update(config: RunConfig, parts: Parts, sizes: Sizes) -> Any:
    """The training step, traced."""
    with jax.set_mesh(parts.mesh):
        step: Any = parts.train_step  # jitted
        return step.trace(initial.abstract_state(parts), abstract_batch(config, parts.step, sizes))


def trace_sampler(config: RunConfig, parts: Parts, sizes: Sizes) -> Any | None:
    """The sampler of a step's rollouts, traced; None for a method that does not sample."""
    if parts.step.source != "policy":
        return None
    with jax.set_mesh(parts.sampling_mesh):
        params = mesh_lib.abstract(lambda: parts.model.init(jax.random.key(0)))
        inputs = abstract_contexts(config.train.prompts_per_step, sizes.context, config.train.group_size)
        sampler: Any = parts.sampler  # jitted
        return sampler.trace(params, *inputs, jax.eval_shape(lambda: jax.random.key(0)))


def count_update(config: RunConfig, sizes: Sizes, mesh: Mesh) -> work.Work:
    """The work of a training step."""
    traced = trace_update(config, make_plan_parts(config, sizes, mesh), sizes)
    return work.count(traced.jaxpr.jaxpr, dict(mesh.shape), iter(()))


def count_sampler(config: RunConfig, sizes: Sizes, mesh: Mesh) -> work.Work:
    """The work of sampling a batch in which every response has the longest length.

    The sampler writes its layers out, and all are of one size: one layer and two are traced, the rest
    follows.
    """

    def of(num_layers: int) -> work.Work:
        fewer = with_layers(config, num_layers)
        parts = make_plan_parts(fewer, sizes, mesh)
        traced = trace_sampler(fewer, parts, sizes)
        if traced is None:
            return work.NONE
        trips = iter(loop_trips(config, sizes, parts.sampling_mesh))
        return work.count(traced.jaxpr.jaxpr, dict(parts.sampling_mesh.shape), trips)

    one, two = of(1), of(2)
    return one.plus(two, config.model.num_layers - 1).plus(one, 1 - config.model.num_layers)


def loop_trips(config: RunConfig, sizes: Sizes, mesh: Mesh) -> list[int]:
    """How often each decoding loop of the sampler runs if no response ends early.

    The cache grows between the first loops; with fewer slots than rollouts the last of these goes on until
    all have been decoded. The loops after them are for the few that are left, and then find nobody.
    """
    num_rows = config.train.prompts_per_step * config.train.group_size
    ways = mesh_lib.row_multiple(mesh)
    slots = min(-(-config.sampling.slots // ways) * ways or num_rows, num_rows)
    ends = capacities(sizes.response)
    ends[-1] *= -(-num_rows // slots)
    return [b - a for a, b in zip([0, *ends], ends)] + [0] * 8


def resident_bytes(config: RunConfig, parts: Parts, sizes: Sizes) -> Bytes:
    """Bytes of a chip: exact, from shapes and shardings."""
    with jax.set_mesh(parts.mesh):
        state: TrainState = initial.abstract_state(parts)
    sampled = parts.step.source == "policy"
    rows = config.train.prompts_per_step * config.train.group_size
    ways = mesh_lib.row_multiple(parts.sampling_mesh)
    slots = min(-(-config.sampling.slots // ways) * ways or rows, rows)
    own = rows * sizes.response if slots == rows else slots * (sizes.context + sizes.response)
    tokens = own + config.train.prompts_per_step * sizes.context
    return Bytes(
        _chip_bytes(state.params),
        _chip_bytes(state.opt_state),
        _chip_bytes(state.teacher),
        cache_bytes(config, parts.sampling_mesh, tokens) if sampled else 0.0,
    )


def cache_bytes(config: RunConfig, mesh: Mesh, tokens: int) -> float:
    """Keys and values of so many tokens over all chips, in bytes of one chip."""
    model = config.model
    heads = mesh.shape["tensor"] if model.num_kv_heads > 1 else 1
    width = 4 if model.compute_dtype == "float32" else 2
    each = 2 * model.num_layers * model.num_kv_heads * model.head_dim * width
    return tokens * each / mesh_lib.row_multiple(mesh) / heads


def _chip_bytes(tree: Any) -> float:
    shards = ((x.dtype.itemsize, x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))
    return float(sum(width * math.prod(shape) for width, shape in shards))
