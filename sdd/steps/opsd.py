r"""Self-distillation from demonstrations that the task writes (OPSD, 2601.18734; SDFT, 2601.19897).

.. math:: L(\theta) = E_x E_{y \sim \pi_\theta} \frac{1}{|y|} \sum_t
    D(\pi_\theta(\cdot | x, y_{<t}),\; \mathrm{sg}\, \pi_\phi(\cdot | x, d^*, y_{<t}))

as in :mod:`sdd.steps.sdsd`, but d* is a right answer of the data, the same for a whole group, so prompts
that the policy never solves are taught, too. The defaults are those of OPSD's scripts: a teacher frozen at
the start and the Jensen-Shannon divergence. SDFT has an average that moves by 0.01 an update
(``teacher="ema"``, ``ema_decay=0.99``) and, in ports of its code, the forward KL. OPSD's clip of each
token's divergence is not done here. Options that choose among rollouts do not apply.
"""

import dataclasses
from typing import Literal

import numpy as np

from sdd.losses.mean import Mean
from sdd.steps import sdsd
from sdd.steps._sdsd_batch import targets_of
from sdd.steps.base import Chosen, StepDef
from sdd.teacher.context import pad_contexts
from sdd.teacher.demos import Demonstrations
from sdd.types import Contexts


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
        K, G = config.num_demos, graded.group_size
        prompts, has_BxK = [], np.zeros((len(graded.examples), K), np.float32)
        for b, (example, rng) in enumerate(zip(graded.examples, rng_B, strict=True)):
            answers = written(task, example, rng, config.tries, K)
            has_BxK[b, : len(answers)] = 1
            answers += [np.zeros(0, np.int32)] * (K - len(answers))
            prompts += [task.demonstration_prompt(example, answer) for answer in answers]
        tokens, length = pad_contexts(task, prompts, task.demonstration_context_length)
        tokens_BxKxD, length_BxK = tokens.reshape(len(has_BxK), K, -1), length.reshape(-1, K)
        contexts = Contexts(np.repeat(tokens_BxKxD, G, 0), np.repeat(length_BxK.astype(np.int32), G, 0))
        weight_NxK = np.repeat(has_BxK / np.maximum(has_BxK.sum(axis=1, keepdims=True), 1), G, 0)
        demos = Demonstrations(np.full(weight_NxK.shape, -1, np.int32), weight_NxK)
        rows = {"demo_rows": Mean((weight_NxK.sum(axis=1) > 0).sum(), len(weight_NxK))}
        return Chosen(targets_of(graded, demos), contexts, rows)

    return sdsd.make(config)._replace(choose=choose)
