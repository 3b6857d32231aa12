r"""GRPO with a mass-covering anchor to the policy at the start (DPH-RL, 2509.07430).

.. math:: L_t = L_t^{GRPO} + \eta\, D(\pi_\theta, \pi_0), \qquad
    D = KL(\pi_0 \| \pi_\theta) \text{ or } JS

A reverse KL lets the policy drop what the start did; these divergences rise, without bound (forward) or to
log 2 (JS), where it does. Here D is exact over the vocabulary at the policy's own prefixes. The paper's
generator form takes it on rollouts that the start wrote beforehand, and splits prompts in advance: no
anchor where the start is to explore, no reward where it was nearly always right. ``where="solved"`` does
that by the group at hand: only groups whose rollouts are all right, which have no advantage, are anchored.
Everything else is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from sdd.losses.divergence import divergence
from sdd.steps import _checks as checks
from sdd.steps import grpo
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    anchor: "forward" KL(start || policy), or "js", the Jensen-Shannon divergence.
    anchor_coefficient: its weight; 0: GRPO.
    where: "all" groups are anchored, or those whose rollouts are all right ("solved").
    """

    anchor: Literal["forward", "js"] = "forward"
    anchor_coefficient: float = 0.1
    where: Literal["all", "solved"] = "all"

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a negative weight.
        """
        grpo.policy_checks(self, run)
        checks.zero_or_more(self, "anchor_coefficient")


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        chosen = plain.choose(task, graded, rng_B)
        solved_B = graded.grades.correct_N.reshape(-1, graded.group_size).all(axis=1)
        solved_N = np.repeat(solved_B, graded.group_size).astype(np.float32)
        anchored_N = np.ones_like(solved_N) if config.where == "all" else solved_N
        return chosen._replace(targets=(chosen.targets, anchored_N))

    def loss(model, params, start, batch):
        targets, anchored_N = batch.targets

        def term(block):
            value = divergence(block.logits_NxTxV, block.reference_NxTxV, config.anchor)
            return config.anchor_coefficient * jnp.asarray(anchored_N)[:, None] * value, {"anchor": value}

        variant = grpo.Variant(term=term, reads_reference=True)
        return grpo.surrogate_loss(config, model, params, start, batch._replace(targets=targets), variant)

    return plain._replace(choose=choose, loss=loss, begin=grpo.copied)
