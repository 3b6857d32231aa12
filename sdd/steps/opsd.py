r"""Self-distillation from demonstrations that the task writes (OPSD, 2601.18734).

.. math:: L(\theta) = E_x E_{y \sim \pi_\theta} \frac{1}{|y|} \sum_t
    D(\pi_\theta(\cdot | x, y_{<t}),\; \mathrm{sg}\, \pi_\phi(\cdot | x, d^*, y_{<t}))

as in :mod:`sdd.steps.sdsd`, but d* is a right answer of the data, the same for a whole group, so prompts
that the policy never solves are taught, too. The defaults are those of OPSD's scripts: a teacher frozen at
the start and the Jensen-Shannon divergence. OPSD's clip of each token's divergence is not done here.
Options that choose among rollouts do not apply. Demonstrations of files: :mod:`sdd.steps.sdft`.
"""

import dataclasses
from typing import Literal

import numpy as np

from sdd.steps import sdsd
from sdd.steps._sdsd_batch import given
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    tries: answers that the task writes for a prompt until ``num_demos`` of them are right.
    """

    divergence: Literal["reverse", "forward", "js"] = "js"
    teacher: Literal["live", "ema", "frozen"] = "frozen"
    tries: int = 8

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, or fewer answers than demonstrations.
        """
        from sdd.config import ConfigError

        sdsd.Config.check(self, run)
        if self.tries < self.num_demos:
            raise ConfigError(f"config.step.tries={self.tries}: must be at least config.step.num_demos")


def written(task, example, rng: np.random.Generator, tries: int, num_demos: int) -> list[np.ndarray]:
    """Up to K right answers that the task writes to a plain prompt."""
    answers = task.supervised(example, rng, tries)[0][1]
    return [answer for answer in answers if task.grade(example, answer).correct][:num_demos]


def make(config: Config) -> StepDef:
    """Builds the method."""

    def choose(task, graded, rng_B) -> Chosen:
        answers_B = [
            written(task, example, rng, config.tries, config.num_demos)
            for example, rng in zip(graded.examples, rng_B, strict=True)
        ]
        numbers_K = np.arange(config.num_demos)
        index_BxK = np.stack([np.where(numbers_K < len(answers), numbers_K, -1) for answers in answers_B])
        index_NxK = np.repeat(index_BxK, graded.group_size, axis=0)
        return given(task, graded, index_NxK, lambda prompt, number: answers_B[prompt][number])

    return sdsd.make(config)._replace(choose=choose)
