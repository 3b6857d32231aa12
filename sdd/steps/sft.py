r"""Supervised fine-tuning: the warm start, which also teaches the network to read a demonstration.

.. math:: L(\theta) = - \frac{1}{\sum |y|} \sum_{(x, y)} \sum_t \log \pi_\theta(y_t | x, y_{<t})

The task writes the rows: contexts (a plain prompt, and one with a demonstration),
each with ``num_answers`` answers.
"""

import dataclasses

import jax.numpy as jnp

from sdd.losses.blockwise import sum_blocks
from sdd.losses.divergence import token_logp
from sdd.losses.mean import Mean
from sdd.sampling.score import response_hidden
from sdd.steps.base import Chosen, StepDef


@dataclasses.dataclass(frozen=True)
class Config:
    """Attributes:
    num_answers: answers to each context.
    block_size: tokens of a response whose logits are held at once; 0: all.
    """

    num_answers: int = 4
    block_size: int = 0


def make(config: Config) -> StepDef:
    """Builds the method."""

    def loss(model, params, teacher, batch):
        rollouts = batch.rollouts
        context = (rollouts.context_BxP, rollouts.context_length_B)
        hidden_NxTxE = response_hidden(model, params, *context, rollouts.response_NxT)
        weight_NxT = jnp.asarray(rollouts.mask_NxT, jnp.float32)
        score = lambda hidden, token: (-token_logp(model.unembed(params, hidden), token), ())  # noqa: E731
        total, _ = sum_blocks(score, config.block_size, weight_NxT, hidden_NxTxE, rollouts.response_NxT)
        return Mean(total, jnp.sum(weight_NxT)), {}

    return StepDef(
        source="task",
        rows_per_prompt=lambda group_size: config.num_answers,
        choose=lambda task, graded, rng_B: Chosen(targets=(), contexts=None, metrics={}),
        loss=loss,
    )
