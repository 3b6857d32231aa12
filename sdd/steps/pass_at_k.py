r"""GRPO on pass@k: the chance that at least one of k rollouts is right (2505.15201, 2508.10751).

.. math::
    A_i = k (\rho_i - \rho(G, c, k)), \qquad
    \rho_i = 1 \text{ for a right rollout, else } \rho(G - 1, c, k - 1), \qquad
    \rho(n, c, k) = 1 - \binom{n - c}{k} / \binom{n}{k}

with c right rollouts in a group of G: rho_i is the chance that k rollouts of the group, i among them, hold
a right one. The expected gradient is (G - k) / G times that of pass@k, since the mean of k rho_i is k
rho(G, c, k); k = 1 is GRPO without the division, with its factor (G - 1) / G. ``normalise_advantages``
takes (rho_i - rho) / sqrt(rho (1 - rho)), as 2508.10751 does. Everything else is GRPO
(:mod:`sdd.steps.grpo`).
"""

import dataclasses
from math import comb

import numpy as np

from sdd.losses.mean import Mean
from sdd.steps import grpo
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    k: rollouts of which one has to be right; below the size of a group.
    """

    k: int = 2

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a k that leaves no advantage: with k = G all rollouts have the same.
        """
        from sdd.config import ConfigError

        grpo.policy_checks(self, run)
        if not 1 <= self.k < run.train.group_size:
            raise ConfigError(
                f"config.step.k={self.k}: must be 1 to {run.train.group_size - 1}, below the group's size"
            )


def chance(n: int, c: int, k: int) -> float:
    """pass@k of n rollouts with c right ones: 1 - C(n - c, k) / C(n, k)."""
    return 1.0 - comb(n - c, k) / comb(n, k)


def advantages(correct_N: np.ndarray, group_size: int, k: int, normalise: bool) -> np.ndarray:
    """The advantages (N,) of verdicts (N,); rows n with the same n // group_size form a group."""
    correct_BxG = np.asarray(correct_N, bool).reshape(-1, group_size)
    found = np.zeros(correct_BxG.shape, np.float32)
    for b, correct_G in enumerate(correct_BxG):
        c = int(correct_G.sum())
        mean = chance(group_size, c, k)
        wrong = chance(group_size - 1, c, k - 1) if c < group_size else 0.0
        scale = k if not normalise else (mean * (1 - mean)) ** -0.5 if 0 < mean < 1 else 0.0
        found[b] = scale * (np.where(correct_G, 1.0, wrong) - mean)
    return found.reshape(-1)


def make(config: Config) -> StepDef:
    """Builds the method."""

    def choose(task, graded, rng_B) -> Chosen:
        advantage_N = advantages(
            graded.grades.correct_N, graded.group_size, config.k, config.normalise_advantages
        )
        targets = grpo.choose(config, graded, graded.grades.score_N).targets
        metrics = {"advantage_nonzero": Mean(np.sum(advantage_N != 0), len(advantage_N))}
        return Chosen(targets._replace(advantage_N=advantage_N), None, metrics)

    return grpo.make(config)._replace(choose=choose)
