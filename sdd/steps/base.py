"""What a method is: a :class:`StepDef` of pure functions, and the one place where they meet the optimizer.

To add a method, write a module with a frozen dataclass ``Config`` and a function
``make(config) -> StepDef``, and name it in a config: ``config.step.name = "my_package.my_step"``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sdd.model import Model
from sdd.tasks.base import Example, Task
from sdd.types import Contexts, Grades, Params, Rollouts, TrainState


class Graded(NamedTuple):
    """A batch on the host, after the verifier has seen it.

    Attributes:
      examples: the B examples.
      rollouts: N = B * G rollouts, as numpy arrays.
      grades: the verdicts.
      group_size: G.
    """

    examples: Sequence[Example]
    rollouts: Rollouts
    grades: Grades
    group_size: int


class Chosen(NamedTuple):
    """What a method decides on the host about a batch.

    Attributes:
      targets: a pytree of numpy arrays with leading axis N, whatever the loss needs.
      contexts: what a teacher reads before the responses, or None.
      metrics: numbers for the log, of the method's own choice (the loop adds those of the batch).
    """

    targets: Any
    contexts: Contexts | None
    metrics: dict[str, float]


class LossBatch(NamedTuple):
    """What the loss sees on the device: fields as in :class:`Graded` and :class:`Chosen`."""

    rollouts: Rollouts
    targets: Any
    contexts: Contexts | None


class StepDef(NamedTuple):
    """A method.

    Attributes:
      source: where rollouts come from: the "policy" samples them, or the "task"
        writes them (supervised training).
      rows_per_prompt: ``(group_size) -> G``, rollouts a prompt in a batch.
      choose: ``(task, graded, rng) -> Chosen``, on the host; advantages,
        demonstrations and the contexts of teachers.
      loss: ``(model, params, teacher, batch) -> (scalar, metrics)``, jitted and
        differentiated with respect to ``params``; metrics are scalars.
      begin: ``(params) -> teacher``, the teacher before the first step.
      after: ``(teacher, params) -> teacher``, after an update of the student.
      tutor: ``(teacher, params) -> params`` of the teacher that reads demonstrations;
        evaluations then also report its health. None: the method has no such teacher.
    """

    source: Literal["policy", "task"]
    choose: Callable[[Task, Graded, np.random.Generator], Chosen]
    loss: Callable[[Model, Params, Any, LossBatch], tuple[jax.Array, dict[str, jax.Array]]]
    rows_per_prompt: Callable[[int], int] = lambda group_size: group_size
    begin: Callable[[Params], Any] = lambda params: ()
    after: Callable[[Any, Params], Any] = lambda teacher, params: teacher
    tutor: Callable[[Any, Params], Params] | None = None


def init_state(step: StepDef, optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first step; on resume, the template of what was saved.

    Every array lives on the mesh, scalars replicated: a restored state and one that a
    step returned have the same types, so neither compiles the step again.
    """
    mesh = jax.sharding.get_mesh()
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    # A buffer of its own for each: the step donates them one by one.
    zero = lambda: jax.device_put(jnp.zeros((), jnp.int32), replicated)  # noqa: E731
    opt_state = jax.tree.map(
        lambda x: jax.device_put(x, replicated) if x.ndim == 0 else x, optimizer.init(params)
    )
    return TrainState(zero(), params, opt_state, step.begin(params), zero(), zero())


def make_train_step(
    step: StepDef, model: Model, optimizer: optax.GradientTransformation, updates_per_batch: int = 1
) -> Callable[[TrainState, LossBatch], tuple[TrainState, dict[str, jax.Array]]]:
    """Joins a method, a model and an optimizer to ``(state, batch) -> (state, metrics)``, jitted.

    The state is donated. An update with a non-finite loss or gradient is not applied:
    parameters, optimizer and teacher stay as they were and the state counts it.

    Args:
      step: the method.
      model: the student (and, with other parameters or contexts, the teacher).
      optimizer: an optax transformation.
      updates_per_batch: updates taken on the same rollouts; metrics are their mean.
    """

    def update(state: TrainState, batch: LossBatch):
        loss_fn = lambda params: step.loss(model, params, state.teacher, batch)  # noqa: E731
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        grad_norm = optax.global_norm(grads)
        changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)  # noqa: E731
        state = TrainState(
            step=state.step,
            params=keep(params, state.params),
            opt_state=keep(opt_state, state.opt_state),
            teacher=keep(step.after(state.teacher, params), state.teacher),
            skipped=state.skipped + jnp.where(finite, 0, 1),
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        skips = {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
        return state, {"loss": loss, "grad_norm": grad_norm, **metrics, **skips}

    def train_step(state: TrainState, batch: LossBatch):
        if updates_per_batch == 1:
            state, metrics = update(state, batch)
        else:
            state, each = jax.lax.scan(lambda s, _: update(s, batch), state, length=updates_per_batch)
            metrics = jax.tree.map(lambda x: jnp.mean(x.astype(jnp.float32)), each)
            metrics["skipped_in_a_row"] = state.skipped_in_a_row
        return state._replace(step=state.step + 1), metrics

    return jax.jit(train_step, donate_argnums=0)


def masked_mean(x_NxT: jax.Array, weight_NxT: jax.Array) -> jax.Array:
    """Mean of ``x`` over the weights; 0 where there is no weight."""
    weight_NxT = weight_NxT.astype(jnp.float32)
    return jnp.sum(x_NxT * weight_NxT) / jnp.maximum(jnp.sum(weight_NxT), 1e-9)
