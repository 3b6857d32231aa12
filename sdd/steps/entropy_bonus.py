r"""GRPO with a bonus for the entropy of the next token (1602.01783, there for actor-critics).

.. math:: L_t = L_t^{GRPO} - c\, H(\pi_\theta(\cdot | x, y_{<t}))

The entropy is exact over the vocabulary, at the prefixes that were sampled, which are held fixed. Where
answers have one token the optimum is pi(y) ~ exp((G - 1) R(y) / (G c)): right answers become alike,
whatever the start preferred. Everything else is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses

from sdd.losses.divergence import entropy
from sdd.steps import grpo
from sdd.steps.base import StepDef


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    entropy_coefficient: weight of the entropy, in reward a nat; 0: GRPO.
    """

    entropy_coefficient: float = 0.01


def make(config: Config) -> StepDef:
    """Builds the method."""

    def bonus(block: grpo.Tokens):
        return -config.entropy_coefficient * entropy(block.logits_NxTxV), {}

    return grpo.make(config, grpo.Variant(term=bonus) if config.entropy_coefficient else grpo.PLAIN)
