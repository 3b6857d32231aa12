r"""GRPO that spreads credit over the likeliest tokens (SimKO, 2510.14807), as its code does it.

At tokens of high entropy, above the quantile q of their response:

.. math::
    \text{right rollouts: } \nabla \log \pi(y_t) \to
        (1 - \alpha) \nabla \log \pi(y_t) + \frac{\alpha}{K} \sum_{v \in \text{top } K} \nabla \log \pi(v)

    \text{wrong rollouts whose } y_t \text{ is the likeliest token: } A \to \lambda A

so that right answers lift their rivals too, and wrong ones lose most where they were surest. The
probability ratio and its clip stay those of y_t. The code takes the top K of the policy that sampled; here
they are the current policy's, the same with one update a batch. alpha = 0 and lambda = 1 is GRPO
(:mod:`sdd.steps.grpo`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses._log_space import log_probs, top_k_mask
from sdd.losses.mean import Mean
from sdd.steps import _checks as checks
from sdd.steps import grpo
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config(grpo.Config):
    """Attributes:
    top_k: K, tokens that a right rollout's credit is spread over.
    spread: alpha, the share of the credit that is spread.
    penalty: lambda, what a wrong rollout's advantage is multiplied by at the likeliest token.
    entropy_quantile: q; tokens of higher entropy than this quantile of their response count as uncertain.
    """

    top_k: int = 3
    spread: float = 0.01
    penalty: float = 1.1
    entropy_quantile: float = 0.8

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as GRPO, or a value out of range.
        """
        from sdd.config import ConfigError

        grpo.policy_checks(self, run)
        if self.top_k < 1:
            raise ConfigError(f"config.step.top_k={self.top_k}: must be 1 or more")
        checks.shares(self, "spread", "entropy_quantile")
        checks.zero_or_more(self, "penalty")


class Targets(NamedTuple):
    """Attributes:
    policy: those of GRPO.
    correct_N: bool, the verdicts.
    uncertain_NxT: float32, 1 on tokens of high entropy.
    """

    policy: grpo.Targets
    correct_N: np.ndarray
    uncertain_NxT: np.ndarray


def uncertain(entropy_NxT: np.ndarray, mask_NxT: np.ndarray, quantile: float) -> np.ndarray:
    """1 on the real tokens whose entropy is above the quantile of their response, float32 (N, T)."""
    found_NxT = np.zeros(mask_NxT.shape, np.float32)
    for row, (entropy_T, mask_T) in enumerate(zip(entropy_NxT, mask_NxT, strict=True)):
        if mask_T.any():
            found_NxT[row] = mask_T & (entropy_T > np.quantile(entropy_T[mask_T], quantile))
    return found_NxT


def make(config: Config) -> StepDef:
    """Builds the method."""
    plain = grpo.make(config)

    def choose(task, graded, rng_B) -> Chosen:
        chosen, rollouts = plain.choose(task, graded, rng_B), graded.rollouts
        mask_NxT = np.asarray(rollouts.mask_NxT)
        uncertain_NxT = uncertain(np.asarray(rollouts.entropy_NxT), mask_NxT, config.entropy_quantile)
        metrics = chosen.metrics | {"uncertain_tokens": Mean(uncertain_NxT.sum(), mask_NxT.sum())}
        return Chosen(Targets(chosen.targets, graded.grades.correct_N, uncertain_NxT), None, metrics)

    def loss(model, params, start, batch):
        targets = batch.targets
        right_Nx1 = jnp.asarray(targets.correct_N)[:, None]
        batch = batch._replace(targets=targets.policy)

        def credited(block):
            logp_NxTxV = log_probs(block.logits_NxTxV)
            inside_NxTxV = top_k_mask(block.logits_NxTxV, config.top_k)
            rivals_NxT = jnp.sum(jnp.where(inside_NxTxV, logp_NxTxV, 0), axis=-1) / config.top_k
            share_NxT = config.spread * block.own[0] * right_Nx1
            moved_NxT = share_NxT * (rivals_NxT - block.logp_NxT)
            return block.logp_NxT + moved_NxT - jax.lax.stop_gradient(moved_NxT)

        def advantage(block):
            advantage_Nx1 = jnp.asarray(targets.policy.advantage_N)[:, None]
            top_NxT = jnp.max(log_probs(block.logits_NxTxV), axis=-1) <= block.logp_NxT
            surest_NxT = top_NxT & (block.own[0] > 0) & (advantage_Nx1 < 0)
            return jnp.where(surest_NxT, config.penalty, 1.0) * advantage_Nx1

        variant = grpo.Variant((targets.uncertain_NxT,), advantage, credited)
        return grpo.surrogate_loss(config, model, params, start, batch, variant)

    return plain._replace(choose=choose, loss=loss)
