"""A method's expected gradient, by enumeration: every group of answers with its probability, no sampling.

What is wrapped is the method itself: its choice of targets and demonstrations on the host, its loss on the
device. Trained with it, a table goes where the method goes on average, without luck.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, permutations
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sdd.losses.divergence import token_logp
from sdd.losses.mean import Mean
from sdd.model import Model
from sdd.sampling.score import response_hidden
from sdd.steps.base import LossBatch, StepDef, init_state, make_train_step
from sdd.tasks.base import TRAIN, Task
from sdd.testing import graded_batch
from sdd.types import Params


class _Order:
    """Stands in for a generator: the order that it draws is given."""

    def __init__(self, order: Sequence[int]):
        self._order = np.array(order)

    def permutation(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x)[self._order]


def every_group(
    step: StepDef, task: Task, answer_YxT: np.ndarray, group_size: int, draws: bool
) -> tuple[LossBatch, np.ndarray]:
    """Every group of answers to the task's only prompt, each as a batch of its own, and its log-multiplicity.

    A group stands for all its orders. Losses are sums over rollouts, so one random order used for all
    rollouts of a group has the same expectation as an order for each.

    Args:
      step: the method.
      task: of `sdd.theory.tabular.task`.
      answer_YxT: all answers.
      group_size: G.
      draws: whether the method draws orders of the group's rollouts at random (demonstrations do).

    Returns:
      a batch with a leading axis X of groups, and log_count_X: log of the number of orders of the group
      over the number of orders that were enumerated for it.
    """
    example = task.source(TRAIN)[0]
    orders = list(permutations(range(group_size))) if draws else [tuple(range(group_size))]
    groups = [
        (group, order)
        for group in combinations_with_replacement(range(len(answer_YxT)), group_size)
        for order in orders
    ]
    graded = graded_batch(
        task, [[answer_YxT[y] for y in group] for group, _ in groups], [example] * len(groups)
    )
    orders_X: list[Any] = [_Order(order) for _, order in groups]
    chosen = step.choose(task, graded, orders_X)
    flat = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
    batch = jax.tree.map(lambda x: np.reshape(x, (len(groups), -1, *np.shape(x)[1:])), flat)
    counts = [_orders_of(group) / len(orders) for group, _ in groups]
    return batch, np.log(counts)


def _orders_of(group: Sequence[int]) -> int:
    number = factorial(len(group))
    for count in Counter(group).values():
        number //= factorial(count)
    return number


def expected(step: StepDef, log_count_X: np.ndarray) -> StepDef:
    """The method whose loss is the expectation of ``step``'s over groups that the current policy draws.

    Its batches are those of `every_group`. The probability of a group has no gradient, as in training.
    """

    def loss(model: Model, params: Params, teacher: Any, batch: LossBatch):
        def of_group(part: LossBatch):
            rollouts = part.rollouts
            hidden = response_hidden(
                model, params, rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT
            )
            logp_NxT = jax.lax.stop_gradient(token_logp(model.unembed(params, hidden), rollouts.response_NxT))
            drawn = rollouts._replace(model_logp_NxT=logp_NxT, sampling_logp_NxT=logp_NxT)
            mean, _ = step.loss(model, params, teacher, part._replace(rollouts=drawn))
            return mean.value, jnp.sum(jnp.where(rollouts.mask_NxT, logp_NxT, 0))

        loss_X, logp_X = jax.vmap(of_group)(batch)
        if step.source == "task":  # the task draws the answers, with the weights that it was given
            logp_X = jnp.zeros_like(logp_X)
        return Mean(jnp.sum(jnp.exp(logp_X + log_count_X) * loss_X), jnp.float32(1)), {}

    return step._replace(loss=loss)


def trainer(
    step: StepDef,
    model: Model,
    log_count_X: np.ndarray,
    optimizer: optax.GradientTransformation,
    num_updates: int,
) -> Callable[[Params, LossBatch], Params]:
    """Returns ``(params, batch of every_group) -> params`` after following the expected gradient.

    It goes through `make_train_step`; the policy that draws is the current one at every update. Call it
    under ``jax.set_mesh``.
    """
    whole = expected(step, log_count_X)
    train_step = make_train_step(whole, model, optimizer, updates_per_batch=num_updates)

    def train(params: Params, batch: LossBatch) -> Params:
        own = jax.tree.map(jnp.array, params)  # the step donates its state
        return train_step(init_state(whole, optimizer, own), batch)[0].params

    return train


def falling_adam(learning_rate: float, num_updates: int) -> optax.GradientTransformation:
    """Adam with a rate that falls to a thousandth: far at first, and still in the end."""
    return optax.adam(optax.exponential_decay(learning_rate, num_updates, 1e-3), b2=0.99)
