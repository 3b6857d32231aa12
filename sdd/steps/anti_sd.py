r"""GRPO that moves away from a teacher with a demonstration (anti-self-distillation, 2605.11609).

.. math::
    A_t = A^{GRPO} + \lambda\, g_t\, \tfrac12 \log \frac{S(y_t)}{(S(y_t) + T(y_t)) / 2}, \qquad
    g_t = \mathbb{1}[H(T) \ge h]

with S the policy and T the teacher that reads a right rollout of the group. The second term is the policy
gradient of the Jensen-Shannon divergence of S and T, *ascended*: a demonstration makes a teacher sure of
what it implies and unsure of tokens that deliberate, and this turns the sign around. It is at most lambda
log(2) / 2. The gate drops it where the teacher's entropy has collapsed; the paper's gate has other units,
and it scales the term by each response's mean and deviation, which is not done here. The defaults are this
project's. lambda = 0 is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from sdd.losses.divergence import entropy, token_logp
from sdd.steps import _checks as checks
from sdd.steps import grpo, sdsd
from sdd.steps.base import Chosen, StepDef
from sdd.teacher import params as teacher_params
from sdd.teacher.context import read_contexts


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    away: lambda, in reward a nat; 0: GRPO.
    entropy_floor: h, in nats; 0: no gate.
    teacher: "live", "ema" or "frozen" parameters.
    ema_decay: decay of the average per update, for "ema".
    """

    away: float = 0.1
    entropy_floor: float = 0.0
    teacher: Literal["live", "ema", "frozen"] = "ema"
    ema_decay: float = 0.995

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a value out of range.
        """
        grpo.policy_checks(self, run)
        checks.zero_or_more(self, "away", "entropy_floor")
        checks.shares(self, "ema_decay")


def away_from(student_logp: jax.Array, teacher_logp: jax.Array) -> jax.Array:
    """Half the log of S over the mean of S and T, for the sampled tokens; at most log(2) / 2."""
    return 0.5 * (math.log(2) - jax.nn.softplus(teacher_logp - student_logp))


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        taught = sdsd.chosen(task, graded, sdsd.draw(sdsd.Config(), graded, rng_B))
        policy = plain.choose(task, graded, rng_B)
        targets = (policy.targets, taught.targets)
        return taught._replace(targets=targets, metrics=policy.metrics | taught.metrics)

    def loss(model, params, teacher, batch):
        targets, taught = batch.targets
        tutor = teacher_params.current(teacher, params)
        read_NxTx1xE = read_contexts(model, tutor, batch.contexts, 1, batch.rollouts.response_NxT)

        def advantage(block):
            logits_NxTxV = jax.lax.stop_gradient(model.unembed(tutor, block.own[0][:, :, 0]))
            found_NxT = away_from(block.logp_NxT, token_logp(logits_NxTxV, block.token_NxT))
            gate_NxT = entropy(logits_NxTxV) >= config.entropy_floor
            weight_Nx1 = config.away * jnp.asarray(taught.weight_NxK)
            return jnp.asarray(targets.advantage_N)[:, None] + weight_Nx1 * jnp.where(gate_NxT, found_NxT, 0)

        variant = grpo.Variant(arrays=(read_NxTx1xE,), advantage=advantage)
        batch = batch._replace(targets=targets)
        return grpo.surrogate_loss(config, model, params, teacher.reference, batch, variant)

    step = plain._replace(choose=choose, loss=loss)
    return sdsd.with_teacher(step, config, with_reference=config.kl_coefficient > 0)
