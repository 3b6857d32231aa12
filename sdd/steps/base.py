"""What a method is: a :class:`StepDef` of pure functions, and the one place where they meet the optimizer.

To add a method, write a module with a frozen dataclass ``Config`` and a function
``make(config) -> StepDef``, and name it in a config: ``config.step.name = "my_package.my_step"``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sdd import mesh as mesh_lib
from sdd.config import RunConfig
from sdd.losses.mean import Mean
from sdd.mesh import BATCH, P
from sdd.model import Model, lora
from sdd.tasks.base import Example, Task
from sdd.types import Contexts, Grades, Params, Rollouts, TrainState


class Graded(NamedTuple):
    """A batch on the host, after the verifier has seen it.

    Attributes:
      examples: the B examples.
      rollouts: N = B * G rollouts, as numpy arrays.
      grades: the verdicts.
      group_size: G.
      max_tokens: the longest response that was allowed; columns that no response reaches are cut off.
    """

    examples: Sequence[Example]
    rollouts: Rollouts
    grades: Grades
    group_size: int
    max_tokens: int


class Chosen(NamedTuple):
    """What a method decides on the host about a batch.

    Attributes:
      targets: a pytree of numpy arrays with leading axis N, whatever the loss needs.
      contexts: what a teacher reads before the responses, or None.
      metrics: for the log, of the method's own choice (the loop adds those of the batch): a `Mean` each, of
        numpy scalars, since several processes each see a part of the batch; without weight it is left out.
      demonstrations: int32 NxK, for the record: rows of this batch that were shown to the teacher of each
        row, -1 for none; None where there are none, or where they are no rows of the batch.
    """

    targets: Any
    contexts: Contexts | None
    metrics: dict[str, Mean]
    demonstrations: np.ndarray | None = None


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
      choose: ``(task, graded, rng_B) -> Chosen``, on the host; advantages,
        demonstrations and the contexts of teachers. The only chance is ``rng_B``, a generator a prompt:
        what is chosen for a prompt then does not depend on which process does it.
      loss: ``(model, params, teacher, batch) -> (Mean, {name: Mean})``, jitted and
        differentiated with respect to ``params``; see `sdd.losses.mean`.
      begin: ``(params) -> teacher``, the teacher before the first step.
      after: ``(teacher, params) -> teacher``, after an update of the student; parameters
        come with adapters merged, so that an average is one of the product.
      ready: ``(task, config) -> None``, before the first step that is left: raises ConfigError where the
        method lacks what it needs of the task or of files.
      tutor: ``(teacher, params) -> params`` of the teacher that reads demonstrations;
        evaluations then also report its health. None: the method has no such teacher.
    """

    source: Literal["policy", "task"]
    choose: Callable[[Task, Graded, Sequence[np.random.Generator]], Chosen]
    loss: Callable[[Model, Params, Any, LossBatch], tuple[Mean, dict[str, Mean]]]
    rows_per_prompt: Callable[[int], int] = lambda group_size: group_size
    begin: Callable[[Params], Any] = lambda params: ()
    after: Callable[[Any, Params], Any] = lambda teacher, params: teacher
    tutor: Callable[[Any, Params], Params] | None = None
    ready: Callable[[Task, RunConfig], None] = lambda task, config: None


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
        lambda x: jax.device_put(x, replicated) if x.ndim == 0 else x, optimizer.init(lora.split(params)[0])
    )
    return TrainState(zero(), params, opt_state, step.begin(lora.merged(params)), zero(), zero())


def make_train_step(
    step: StepDef,
    model: Model,
    optimizer: optax.GradientTransformation,
    updates_per_batch: int = 1,
    micro_batches: int = 1,
) -> Callable[[TrainState, LossBatch], tuple[TrainState, dict[str, jax.Array]]]:
    """Joins a method, a model and an optimizer to ``(state, batch) -> (state, metrics)``, jitted.

    The state is donated. An update with a non-finite loss or gradient is not applied:
    parameters, optimizer and teacher stay as they were and the state counts it.

    Args:
      step: the method.
      model: the student (and, with other parameters or contexts, the teacher).
      optimizer: an optax transformation.
      updates_per_batch: updates taken on the same rollouts; metrics are their mean.
      micro_batches: parts that a batch is read in, one after the other, to bound the memory. Their
        losses are sums until all are added, so an update is the same for every number of parts.
    """

    def update(state: TrainState, batch: LossBatch):
        trained, frozen = lora.split(state.params)
        loss_fn = lambda trained, part: step.loss(  # noqa: E731
            model, lora.join(trained, frozen), state.teacher, part
        )
        loss, metrics, grads = loss_and_grads(loss_fn, trained, batch, micro_batches)
        grad_norm = optax.global_norm(grads)
        changes, opt_state = optimizer.update(grads, state.opt_state, trained)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)  # noqa: E731
        params = lora.join(keep(optax.apply_updates(trained, changes), trained), frozen)
        state = TrainState(
            step=state.step,
            params=params,
            opt_state=keep(opt_state, state.opt_state),
            teacher=keep(step.after(state.teacher, lora.merged(params)), state.teacher),
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


def loss_and_grads(
    loss_fn: Callable[[Params, LossBatch], tuple[Mean, dict[str, Mean]]],
    params: Params,
    batch: LossBatch,
    micro_batches: int,
) -> tuple[jax.Array, dict[str, jax.Array], Params]:
    """The loss, the metrics and the gradient of a whole batch that is read in parts.

    The loss is sum of totals over sum of weights; weights have no gradient, so its gradient is
    the sum of the totals' gradients over the sum of weights.
    """

    def of_part(part: LossBatch):
        def total(params):
            loss, metrics = loss_fn(params, part)
            check_means(loss, metrics)
            return loss.total, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (loss, metrics))

        grads, means = jax.grad(total, has_aux=True)(params)
        return grads, means

    if micro_batches == 1:
        grads, (loss, metrics) = of_part(batch)
    else:
        parts = split_rows(batch, micro_batches)
        first = jax.tree.map(lambda x: x[0], parts)
        zero = (
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, first)[1]),
        )
        add = lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(part)), None)  # noqa: E731
        (grads, (loss, metrics)), _ = jax.lax.scan(add, zero, parts)
    scale = 1 / jnp.where(loss.weight == 0, 1, loss.weight)
    grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
    return loss.value, {name: mean.value for name, mean in metrics.items()}, grads


def check_means(loss: object, metrics: Mapping[str, object]) -> None:
    """Raises TypeError in one line unless a loss gives what parts of a batch can add up to."""
    for name, value in {"the loss": loss, **metrics}.items():
        if not isinstance(value, Mean):
            raise TypeError(
                f"StepDef.loss: {name} is of type {type(value).__name__}; valid: a sdd.losses.mean.Mean, "
                "as masked_mean returns"
            )


def split_rows(batch: LossBatch, micro_batches: int) -> LossBatch:
    """Adds a leading axis of parts to every array; each device cuts the rows that it holds.

    Groups stay whole, and contexts stay with their groups. The order of rows within a
    batch changes, which no loss sees.
    """
    devices = mesh_lib.row_multiple(jax.sharding.get_abstract_mesh())

    def split(x):
        rest = x.shape[1:]
        free = (None,) * len(rest)
        size = x.shape[0] // (devices * micro_batches)
        x = jnp.reshape(
            x, (devices, micro_batches, size, *rest), out_sharding=P(BATCH, None, None, *free)
        ).swapaxes(0, 1)
        return jnp.reshape(x, (micro_batches, devices * size, *rest), out_sharding=P(None, BATCH, *free))

    return jax.tree.map(split, batch)
