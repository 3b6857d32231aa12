r"""Self-distillation from sampled tokens that holds back what lowers the entropy (IDA-OPD, 2608.29846).

.. math::
    a_t = \log T(y_t) - \log S(y_t), \qquad
    I_t = a_t \Big(\sum_v S(v)^2 (\log S(v) + H(S)) - S(y_t) (\log S(y_t) + H(S))\Big)

    A_t = a_t \text{ where } I_t \ge 0, \text{ else } a_t / (1 + \kappa |a_t|)

I is the change of the next token's entropy, to first order, when the logits move along the gradient of a
log S(y): the gap to the teacher times the student's local structure. As described in the paper's abstract:
it keeps updates that expand the entropy, and shrinks those that contract it, the more the further the
teacher is away. The form of the shrinkage and its default are this project's. kappa = 0 is
:mod:`sdd.steps.sdsd` with ``estimator="sampled"`` and ``denominator="all"``. The teacher reads a right
rollout of the group.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from sdd.losses._log_space import log_probs
from sdd.losses.divergence import token_logp
from sdd.steps import _checks as checks
from sdd.steps import grpo, sdsd
from sdd.steps.base import Chosen, StepDef
from sdd.teacher import params as teacher_params
from sdd.teacher.context import read_contexts


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    shrinkage: kappa, a nat; 0: none.
    teacher: "live", "ema" or "frozen" parameters.
    ema_decay: decay of the average per update, for "ema".
    """

    shrinkage: float = 1.0
    teacher: Literal["live", "ema", "frozen"] = "ema"
    ema_decay: float = 0.995

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a value out of range.
        """
        grpo.policy_checks(self, run)
        checks.zero_or_more(self, "shrinkage")
        checks.shares(self, "ema_decay")


def influence(logits_xV: jax.Array, token_logp: jax.Array, advantage: jax.Array) -> jax.Array:
    """d entropy / d step along the gradient of advantage * log S(token) in the logits; nats, (...)."""
    logp_xV = log_probs(logits_xV)
    p_xV = jnp.exp(logp_xV)
    entropy = -jnp.sum(p_xV * logp_xV, axis=-1)
    mean = jnp.sum(p_xV**2 * (logp_xV + entropy[..., None]), axis=-1)
    return advantage * (mean - jnp.exp(token_logp) * (token_logp + entropy))


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        taught = sdsd.chosen(task, graded, sdsd.draw(sdsd.Config(), graded, rng_B))
        policy = plain.choose(task, graded, rng_B)
        return taught._replace(targets=(policy.targets, taught.targets))

    def loss(model, params, teacher, batch):
        targets, taught = batch.targets
        tutor = teacher_params.current(teacher, params)
        read_NxTx1xE = read_contexts(model, tutor, batch.contexts, 1, batch.rollouts.response_NxT)

        def parts(block):
            logits_NxTxV = jax.lax.stop_gradient(model.unembed(tutor, block.own[0][:, :, 0]))
            gap_NxT = token_logp(logits_NxTxV, block.token_NxT) - block.logp_NxT
            contracts_NxT = influence(block.logits_NxTxV, block.logp_NxT, gap_NxT) < 0
            shrunk_NxT = gap_NxT / (1 + config.shrinkage * jnp.abs(gap_NxT))
            kept_NxT = jnp.where(contracts_NxT, shrunk_NxT, gap_NxT) * jnp.asarray(taught.weight_NxK)
            return kept_NxT, contracts_NxT.astype(jnp.float32)

        variant = grpo.Variant(
            arrays=(read_NxTx1xE,),
            advantage=lambda block: parts(block)[0],
            term=lambda block: (0.0, {"contracting": parts(block)[1]}),
        )
        batch = batch._replace(targets=targets)
        return grpo.surrogate_loss(config, model, params, teacher.reference, batch, variant)

    step = plain._replace(choose=choose, loss=loss)
    return sdsd.with_teacher(step, config, with_reference=config.kl_coefficient > 0)
