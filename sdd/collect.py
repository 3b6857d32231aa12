"""Where the rollouts of a step come from: the policy, one step ahead if asked to, or the task."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdd import mesh as mesh_lib
from sdd.checkpoint import Restored
from sdd.data import columns_for, pad_right
from sdd.evaluate import grade
from sdd.job import Job, announce
from sdd.rng import stream_key, stream_rng
from sdd.steps.base import Graded
from sdd.tasks.base import Example
from sdd.teacher.context import pad_contexts
from sdd.types import Grades, Params, Rollouts


def generators(seed: int, name: str, step: int, num_prompts: int) -> list[np.random.Generator]:
    """A generator for each of this process's prompts, by their places in the whole batch."""
    first = jax.process_index() * num_prompts
    return [stream_rng(seed, name, step, first + prompt) for prompt in range(num_prompts)]


def same_columns(job: Job, tokens: np.ndarray) -> np.ndarray:
    """Contexts, padded on the left to the columns of the process that has most: all compile one program."""
    missing = job.most(tokens.shape[-1]) - tokens.shape[-1]
    widths = [(0, 0)] * (tokens.ndim - 1) + [(missing, 0)]
    return np.pad(tokens, widths, constant_values=job.parts.task.tokenizer.pad_id)


def sample(job: Job, params: Params, examples: list[Example], step: int) -> Rollouts:
    """Starts to sample a group for every example; the device is at work when this returns."""
    task, config = job.parts.task, job.config
    tokens_BxP, length_B = pad_contexts(task, [task.prompt(e) for e in examples], task.context_length)
    tokens_BxP = same_columns(job, tokens_BxP)
    num_rows = len(examples) * config.train.group_size
    row_ids_N = jax.process_index() * num_rows + np.arange(num_rows, dtype=np.int32)
    mesh, params = job.parts.sampling_mesh, job.parts.for_sampling(params)
    with jax.set_mesh(mesh):
        context, length, row_ids = mesh_lib.put_rows(mesh, (tokens_BxP, length_B, row_ids_N))
        return job.parts.sampler(params, context, length, row_ids, stream_key(config.seed, "sample", step))


def sample_ahead(job: Job, params: Params, data: Any, step: int) -> Rollouts | None:
    """Starts to sample the rollouts of ``step`` with parameters that are one update old by then.

    The device samples while the host grades the step before. The position in the data stays.
    None where the config does not ask for it, or no such step is left.
    """
    if not job.config.train.async_steps or step > job.config.train.num_steps:
        return None
    position = data.get_state()
    examples = next(data)
    data.set_state(position)
    return sample(job, params, examples, step)


def row_layout(job: Job) -> dict[str, Any]:
    """Whose rows lie where in global arrays; kept in checkpoints for `usable_ahead`."""
    meshes = job.parts.mesh.devices, job.parts.sampling_mesh.devices
    return {"processes": jax.process_count(), "in_order": all(map(mesh_lib.rows_are_in_order, meshes))}


def usable_ahead(job: Job, restored: Restored) -> Rollouts | None:
    """The rollouts that a checkpoint holds, if their rows are those of the same prompts on this mesh too."""
    if restored.ahead is None:
        return None
    then, now = restored.meta["rows"], row_layout(job)
    if then == now or (then["in_order"] and now["in_order"]):
        return restored.ahead
    message = "rollouts that were sampled ahead are sampled anew: their rows lie elsewhere on this mesh"
    announce(job, int(restored.state.step), "resampled", message)
    return None


def longest(rollouts: Rollouts) -> jax.Array:
    """Tokens of the longest response of all processes, which must agree on shapes; still on the device."""
    with jax.set_mesh(rollouts.mask_NxT.sharding.mesh):
        return _longest(rollouts.mask_NxT)


@jax.jit
def _longest(mask_NxT: jax.Array) -> jax.Array:
    return jnp.max(jnp.sum(mask_NxT, axis=1))


def graded(
    job: Job, examples: list[Example], rollouts: Rollouts, longest: jax.Array
) -> tuple[Rollouts, Graded]:
    """Rollouts, on the device and graded on the host, without the columns that no response reaches."""
    task, max_tokens = job.parts.task, rollouts.mask_NxT.shape[1]
    host = mesh_lib.get_rows(rollouts)
    columns = columns_for(int(longest), max_tokens)
    host = first_columns(host, columns)
    if job.parts.sampling_mesh == job.parts.mesh:
        rollouts = first_columns(rollouts, columns)
    else:
        rollouts = mesh_lib.put_rows(job.parts.mesh, host)
    grades = grade(task, examples, host)
    return rollouts, Graded(examples, host, grades, job.config.train.group_size, max_tokens)


def first_columns(rollouts: Rollouts, columns: int) -> Rollouts:
    """Rollouts without the columns that no response reaches: an update does not compute for padding."""
    if columns == rollouts.mask_NxT.shape[1]:
        return rollouts
    each = (name for name in Rollouts._fields if name.endswith("_NxT"))
    return rollouts._replace(**{name: getattr(rollouts, name)[:, :columns] for name in each})


def supervised(job: Job, examples: list[Example], step: int) -> tuple[Rollouts, Graded]:
    """The rows that the task itself writes: contexts, each with a group of right answers."""
    task = job.parts.task
    rng_B = generators(job.config.seed, "supervised", step, len(examples))
    group_size = job.parts.step.rows_per_prompt(job.config.train.group_size)
    groups = [row for e, rng in zip(examples, rng_B) for row in task.supervised(e, rng, group_size)]
    context_BxP, length_B = pad_contexts(task, [c for c, _ in groups], task.demonstration_context_length)
    context_BxP = same_columns(job, context_BxP)
    answers = [answer for _, group in groups for answer in group]
    response_NxT, mask_NxT = pad_right(answers, task.response_length, task.tokenizer.pad_id)
    zero_NxT = np.zeros(response_NxT.shape, np.float32)
    host = Rollouts(context_BxP, length_B, response_NxT, mask_NxT, zero_NxT, zero_NxT, zero_NxT)
    right = np.ones(len(answers), bool)
    grades = Grades(right, right.astype(np.float32), np.full(len(right), -1, np.int32), mask_NxT.sum(axis=1))
    graded = Graded(examples, host, grades, group_size, task.response_length)
    return mesh_lib.put_rows(job.parts.mesh, host), graded
