r"""GRPO pulled to an average of its own parameters, so that it can be compared with an averaged teacher.

.. math::
    L_t = L_t^{GRPO} + \beta\, k_3(\pi_\theta \| \pi_\phi), \qquad
    \phi \leftarrow d\, \phi + (1 - d)\, \theta \text{ after each update}

The pull is that of GRPO (2402.03300) to another reference. Self-distillation from an averaged teacher is
held back by the average; GRPO without any pull is not, so a comparison of the two confounds reward with
anchor. d = 1 is GRPO with a pull to the start; with d = 0 and one update a batch the pull vanishes.
Everything else is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses

from sdd.steps import _checks as checks
from sdd.steps import grpo
from sdd.steps.base import StepDef
from sdd.teacher.params import ema


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    kl_coefficient: weight of the pull.
    ema_decay: decay d of the average per update, from 0 to 1; 1: the start.
    """

    kl_coefficient: float = 0.1
    ema_decay: float = 0.995

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, no pull at all, or a decay out of range.
        """
        from sdd.config import ConfigError

        grpo.policy_checks(self, run)
        if not self.kl_coefficient > 0:
            raise ConfigError(
                f"config.step.kl_coefficient={self.kl_coefficient}: must be above 0; without a pull use "
                "sdd.steps.grpo"
            )
        checks.shares(self, "ema_decay")


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def loss(model, params, average, batch):
        mean, metrics = plain.loss(model, params, average, batch)
        return mean, {"kl_to_average" if name == "kl_to_start" else name: x for name, x in metrics.items()}

    return plain._replace(loss=loss, after=lambda average, params: ema(average, params, config.ema_decay))
