r"""Self-distillation weighted by how often a prompt is solved (SC-SDPO, 2605.27765).

.. math:: L = \frac{\sum_n w_n L_n}{\sum_n w_n}, \qquad w_n = (\hat p_n (1 - \hat p_n))^{\gamma}

with p_n the share of right rollouts in the group of n and L_n the loss of :mod:`sdd.steps.sdsd`. The
reverse KL teaches a prompt that is nearly solved as hard as one at the edge; these weights are what is left
of a prompt's scale in GRPO's normalised advantage. Dividing by the sum of weights is the paper's
normalisation over the batch. gamma = 0 is sdsd.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from sdd.losses.mean import Mean
from sdd.steps import _checks as checks
from sdd.steps import sdsd
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    exponent: gamma; 0: all prompts weigh the same.
    """

    exponent: float = 0.5

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, or a negative exponent.
        """
        sdsd.Config.check(self, run)
        checks.zero_or_more(self, "exponent")


class Targets(NamedTuple):
    """Attributes:
    taught: those of sdsd.
    row_weight_N: float32, w of each rollout's group.
    """

    taught: sdsd.Targets
    row_weight_N: np.ndarray


def row_weights(correct_N: np.ndarray, group_size: int, exponent: float) -> np.ndarray:
    """(p (1 - p))^exponent of each rollout's group, (N,)."""
    rate_B = np.asarray(correct_N, np.float64).reshape(-1, group_size).mean(axis=1)
    return np.repeat((rate_B * (1 - rate_B)) ** exponent, group_size).astype(np.float32)


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = sdsd.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        chosen = plain.choose(task, graded, rng_B)
        weight_N = row_weights(graded.grades.correct_N, graded.group_size, config.exponent)
        metrics = chosen.metrics | {"row_weight": Mean(weight_N.sum(), len(weight_N))}
        return chosen._replace(targets=Targets(chosen.targets, weight_N), metrics=metrics)

    def loss(model, params, teacher, batch):
        targets = batch.targets
        batch = batch._replace(targets=targets.taught)
        return sdsd.distillation_loss(
            config, model, params, teacher, batch, sdsd.Variant(), targets.row_weight_N
        )

    return plain._replace(choose=choose, loss=loss)
