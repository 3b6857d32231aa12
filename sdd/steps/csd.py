r"""Calibrated self-distillation: demonstrations are averaged, not multiplied (this project's).

.. math::
    L(\theta) = E_x E_{y \sim \pi_\theta} \frac{1}{|y|} \sum_t
        KL(T_d^{(\tau)}(\cdot | x, d, y_{<t}) \,\|\, \pi_\theta(\cdot | x, y_{<t})), \qquad
    q(d) \propto c_d\, \pi_{old}(d | x)^{-\alpha}

plus v times the loss of :mod:`sdd.steps.grpo` on the same rollouts. The teacher and the right rollouts d are
those of :mod:`sdd.steps.sdsd`, and T^(tau) is the teacher's distribution at temperature tau. Why: the reverse
KL of sdsd ends at the geometric mean of what readers of different demonstrations say, where an answer counts
only as far as all of them allow it, so that the likelier way wins. The forward KL is linear in the teacher.
It ends at the arithmetic mean, which keeps the ratios of right answers where readers are calibrated; tau
below 1 takes away a reader's errors, which a forward KL would otherwise teach; and alpha draws rare
demonstrations more often, against the drift of finite groups: of a large group 1 demonstrates all right
answers alike. One demonstration a rollout is enough, as the gradient is linear too. What a forward KL is slow
to take away are slips that the student makes and no teacher would; the verdict on the student's own rollouts
does, and its optimum keeps ratios too. tau = 1, alpha = 0 and v = 0 are sdsd with its forward KL. See
docs/findings.md.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from sdd.losses.mean import Mean
from sdd.steps import _checks as checks
from sdd.steps import grpo, sdsd
from sdd.steps.base import Chosen, Graded, StepDef
from sdd.teacher.demos import Demonstrations


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    teacher_temperature: tau; divides the teacher's logits.
    balance: alpha; 0: all right rollouts of the group demonstrate alike.
    verdict: v, the weight of GRPO's loss; 0: none.
    """

    divergence: Literal["reverse", "forward", "js"] = "forward"
    denominator: Literal["active", "all"] = "all"
    teacher_temperature: float = 0.5
    balance: float = 0.2
    verdict: float = 2.0

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, a value out of range, or an order of demonstrations that is not by chance.
        """
        from sdd.config import ConfigError

        sdsd.Config.check(self, run)
        checks.zero_or_more(self, "balance", "verdict")
        if self.teacher_temperature <= 0:
            raise ConfigError(f"config.step.teacher_temperature={self.teacher_temperature}: must be above 0")
        if self.demo_policy != "random" or self.demo_per != "rollout":
            raise ConfigError(
                f"config.step.demo_policy={self.demo_policy!r}, demo_per={self.demo_per!r}: must be 'random' "
                "and 'rollout'; config.step.balance says how demonstrations are drawn"
            )
        if self.verdict and self.denominator != "all":
            raise ConfigError(
                f"config.step.denominator={self.denominator!r}: must be 'all', as the verdict is on all "
                "rollouts; or config.step.verdict=0"
            )


def draw(config: Config, graded: Graded, rng_B) -> Demonstrations:
    """Up to K right rollouts of its group for each rollout, without replacement, each drawn by q.

    With balance 0 exactly the draws of sdsd.
    """
    if not config.balance:
        return sdsd.draw(config, graded, rng_B)
    rollouts, correct_N, size = graded.rollouts, graded.grades.correct_N, graded.group_size
    logp_N = np.where(rollouts.mask_NxT, rollouts.model_logp_NxT, 0).sum(axis=1, dtype=np.float64)
    index_NxK = np.full((len(correct_N), config.num_demos), -1, np.int32)
    for row in range(len(correct_N)):
        group = np.arange(row // size * size, (row // size + 1) * size)
        # The largest of these are a draw by q without replacement (Gumbel, as 1903.06059 has it).
        score = -config.balance * logp_N[group] + rng_B[row // size].gumbel(size=size)
        order = group[np.argsort(-score, kind="stable")]
        fits = correct_N[order] & ((order != row) | (not config.exclude_own))
        chosen = order[fits][: config.num_demos]
        index_NxK[row, : len(chosen)] = chosen
    has_NxK = (index_NxK >= 0).astype(np.float32)
    return Demonstrations(index_NxK, has_NxK / np.maximum(has_NxK.sum(axis=1, keepdims=True), 1))


class Targets(NamedTuple):
    """Attributes:
    taught: those of sdsd.
    policy: those of GRPO.
    """

    taught: sdsd.Targets
    policy: grpo.Targets


def make(config: Config) -> StepDef:
    """Builds the method."""
    policy = grpo.Config(block_size=config.block_size)

    def logits(config, model, params, tutor, reference):
        plain = sdsd.make_logits(config, model, params, tutor, reference)

        def sharpened(hiddens) -> sdsd.Logits:
            both = plain(hiddens)
            return both._replace(teacher=both.teacher / config.teacher_temperature)

        return sharpened

    distilled = sdsd.make(config, sdsd.Variant(logits=logits))

    def choose(task, graded, rng_B) -> Chosen:
        demos = draw(config, graded, rng_B)
        taught = sdsd.chosen(task, graded, demos)
        judged = grpo.choose(policy, graded, graded.grades.score_N)
        shown = demos.index_NxK[demos.index_NxK >= 0]
        logp_N = np.where(graded.rollouts.mask_NxT, graded.rollouts.model_logp_NxT, 0).sum(axis=1)
        metrics = taught.metrics | judged.metrics | {"demo_logp": Mean(logp_N[shown].sum(), len(shown))}
        return taught._replace(targets=Targets(taught.targets, judged.targets), metrics=metrics)

    def loss(model, params, teacher, batch):
        parts = batch.targets
        taught, metrics = distilled.loss(model, params, teacher, batch._replace(targets=parts.taught))
        if not config.verdict:
            return taught, metrics
        judged, more = grpo.surrogate_loss(policy, model, params, (), batch._replace(targets=parts.policy))
        # Both are means over all rows, so that their totals add up.
        return Mean(taught.total + config.verdict * judged.total, taught.weight), metrics | more

    return distilled._replace(choose=choose, loss=loss)
