r"""GRPO with token credit from right against wrong demonstrations (RLCSD, 2606.11709).

.. math::
    A_t = A^{GRPO} + \lambda\, \mathrm{clip}(e_t, -b, b), \qquad
    e_t = \log \pi_\phi(y_t | x, d^+, y_{<t}) - \log \pi_\phi(y_t | x, d^-, y_{<t})

with d+ a right and d- a wrong rollout of the group, never the rollout itself. e_t is the difference of the
two teachers' gaps to the student, in which the student and what reading any demonstration does to style
cancel. The contrast is the paper's; how it is joined to GRPO's advantage there was not at hand, and the
sum, the clip and the defaults are this project's. A rollout whose group lacks either kind has e = 0. lambda
= 0 is GRPO (:mod:`sdd.steps.grpo`).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses.divergence import token_logp
from sdd.losses.mean import Mean
from sdd.steps import _checks as checks
from sdd.steps import grpo, sdsd
from sdd.steps.base import Chosen, StepDef
from sdd.teacher import params as teacher_params
from sdd.teacher.context import demonstration_contexts, read_contexts
from sdd.teacher.demos import choose_demonstrations


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    contrast: lambda, in reward a nat; 0: GRPO.
    bound: largest size of the contrast, in nats.
    teacher: "live", "ema" or "frozen" parameters.
    ema_decay: decay of the average per update, for "ema".
    """

    contrast: float = 0.1
    bound: float = 2.0
    teacher: Literal["live", "ema", "frozen"] = "ema"
    ema_decay: float = 0.995

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a value out of range.
        """
        grpo.policy_checks(self, run)
        checks.zero_or_more(self, "contrast", "bound")
        checks.shares(self, "ema_decay")


class Targets(NamedTuple):
    """Attributes:
    policy: those of GRPO.
    both_N: float32, 1 where a right and a wrong demonstration were found.
    """

    policy: grpo.Targets
    both_N: np.ndarray


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        grades, length_N = graded.grades, np.asarray(graded.rollouts.mask_NxT).sum(axis=1)
        kinds = (grades, grades._replace(correct_N=~grades.correct_N))
        found = [choose_demonstrations(g, length_N, rng_B, group_size=graded.group_size) for g in kinds]
        index_Nx2 = np.concatenate([demos.index_NxK for demos in found], axis=1)
        both_N = np.all(index_Nx2 >= 0, axis=1).astype(np.float32)
        chosen = plain.choose(task, graded, rng_B)
        contexts = demonstration_contexts(task, graded.examples, graded.rollouts, index_Nx2)
        metrics = chosen.metrics | {"contrast_rows": Mean(both_N.sum(), len(both_N))}
        return Chosen(Targets(chosen.targets, both_N), contexts, metrics, index_Nx2)

    def loss(model, params, teacher, batch):
        targets, tutor = batch.targets, teacher_params.current(teacher, params)
        read = read_contexts(model, tutor, batch.contexts, 2, batch.rollouts.response_NxT)

        def contrast(block):
            logits_NxTx2xV = jax.lax.stop_gradient(model.unembed(tutor, block.own[0]))
            token_NxTx2 = jnp.broadcast_to(block.token_NxT[..., None], logits_NxTx2xV.shape[:3])
            logp_NxTx2 = token_logp(logits_NxTx2xV, token_NxTx2)
            found_NxT = jnp.clip(logp_NxTx2[..., 0] - logp_NxTx2[..., 1], -config.bound, config.bound)
            return jnp.asarray(targets.both_N)[:, None] * found_NxT

        def advantage(block):
            return jnp.asarray(targets.policy.advantage_N)[:, None] + config.contrast * contrast(block)

        variant = grpo.Variant(
            arrays=(read,),
            advantage=advantage,
            term=lambda block: (0.0, {"contrast_size": jnp.abs(contrast(block))}),
        )
        batch = batch._replace(targets=targets.policy)
        return grpo.surrogate_loss(config, model, params, teacher.reference, batch, variant)

    step = plain._replace(choose=choose, loss=loss)
    return sdsd.with_teacher(step, config, with_reference=config.kl_coefficient > 0)
