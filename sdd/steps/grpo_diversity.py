r"""GRPO with a bonus for rare strategies.

.. math:: r_i = c_i (1 + b (1 - \text{share of the group's other rollouts with the strategy of } i))

with c_i = 1 for a right rollout and 0 otherwise (2606.26091's diversity baseline).
Everything else is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses

import numpy as np

from sdd.losses.mean import Mean
from sdd.losses.policy import diversity_bonus
from sdd.steps import grpo
from sdd.steps.base import StepDef


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    bonus: the most that a correct rollout gains, when no other uses its strategy.
    """

    bonus: float = 0.5


def make(config: Config) -> StepDef:
    """Builds the method."""

    def choose(task, graded, rng_B):
        grades = graded.grades
        reward_N = np.asarray(
            diversity_bonus(grades.correct_N, grades.strategy_N, graded.group_size, config.bonus)
        )
        chosen = grpo.choose(config, graded, reward_N)
        bonus = Mean(np.sum(reward_N - grades.correct_N), len(reward_N))
        return chosen._replace(metrics=chosen.metrics | {"bonus": bonus})

    return grpo.make(config)._replace(choose=choose)
