r"""REINFORCE with a leave-one-out baseline (RLOO, 2402.14740): a rollout is weighed against its group.

.. math::
    A_i = r_i - \frac{1}{G - 1} \sum_{j \neq i} r_j, \qquad
    L = - \frac{1}{N} \sum_i A_i \sum_t \log \pi_\theta(y_{it} | x, y_{i, <t})

The baseline of a rollout does not depend on it, so the expectation of the gradient is that of the expected
reward. It is a method to begin from: change the equation, then `choose` and `loss`, then the tests.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from sdd.config import ConfigError
from sdd.losses.blockwise import sum_blocks
from sdd.losses.divergence import entropy, token_logp
from sdd.losses.mean import Mean, masked_mean
from sdd.losses.policy import token_weights
from sdd.sampling.score import response_hidden
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config:
    """The options, set by ``--config.step.NAME=VALUE``.

    Attributes:
      baseline: subtract the mean reward of the other rollouts of the group.
      block_size: tokens of a response whose logits are held at once; 0: all.
    """

    baseline: bool = True
    block_size: int = 0

    def check(self, run) -> None:
        """Refuses what cannot work, in one line, before anything is compiled."""
        if self.baseline and run.train.group_size < 2:
            raise ConfigError(f"config.train.group_size={run.train.group_size}: a baseline needs 2 or more")


class Targets(NamedTuple):
    """advantage_N: float32."""

    advantage_N: np.ndarray


def advantages(reward_N: np.ndarray, group_size: int, baseline: bool) -> np.ndarray:
    """Rewards less the mean of the others in the group, float32 (N,); row n is of group n // group_size."""
    reward_BxG = reward_N.reshape(-1, group_size).astype(np.float32)
    if baseline:
        others_BxG = (reward_BxG.sum(axis=1, keepdims=True) - reward_BxG) / (group_size - 1)
        reward_BxG = reward_BxG - others_BxG
    return reward_BxG.reshape(-1)


def make(config: Config) -> StepDef:
    """The method, as a set of pure functions."""

    def choose(task, graded, rng_B) -> Chosen:  # on the host; chance comes from rng_B alone
        advantage_N = advantages(graded.grades.score_N, graded.group_size, config.baseline)
        seen = {"advantage_nonzero": Mean(np.sum(advantage_N != 0), len(advantage_N))}
        return Chosen(Targets(advantage_N), contexts=None, metrics=seen)

    def loss(model, params, teacher, batch):  # on the device, differentiated with respect to params
        r, advantage_N = batch.rollouts, batch.targets.advantage_N

        def score(hidden, token):  # of a block of tokens: their losses, and what else to see of them
            logits = model.unembed(params, hidden)
            return -advantage_N[:, None] * token_logp(logits, token), entropy(logits)

        hidden_NxTxE = response_hidden(model, params, r.context_BxP, r.context_length_B, r.response_NxT)
        # The sum over tokens, not their mean, and then the mean over rollouts.
        one_N = np.ones(r.mask_NxT.shape[0], np.float32)
        weight_NxT, divisor = token_weights(r.mask_NxT, one_N, "constant", constant_length=1)
        total, entropy_NxT = sum_blocks(score, config.block_size, weight_NxT, hidden_NxTxE, r.response_NxT)
        return Mean(total, divisor), {"policy_entropy": masked_mean(entropy_NxT, r.mask_NxT)}

    return StepDef(source="policy", choose=choose, loss=loss)
