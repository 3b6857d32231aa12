"""Logits to tokens: one a row, with its own key, and what is written down about it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import SamplingConfig
from sdd.sampling.filters import filter_logits
from sdd.types import Key


class Drawn(NamedTuple):
    """One token a row; fields as in :class:`~sdd.types.Rollouts`."""

    token_N: jax.Array
    sampling_logp_N: jax.Array
    model_logp_N: jax.Array
    entropy_N: jax.Array


def draw(logits_NxV: jax.Array, key_N: Key, config: SamplingConfig) -> Drawn:
    """Draws a token a row, each with its own key."""
    filtered_NxV = filter_logits(logits_NxV, config)
    model_logp_NxV = jax.nn.log_softmax(logits_NxV)
    p_NxV = jnp.exp(model_logp_NxV)
    if filtered_NxV is logits_NxV:
        sampling_logp_NxV, sampling_p_NxV = model_logp_NxV, p_NxV
    else:
        sampling_logp_NxV = jax.nn.log_softmax(filtered_NxV)
        sampling_p_NxV = jnp.exp(sampling_logp_NxV)
    token_N = choose(sampling_p_NxV, key_N)
    # Gathering from a single row, split over devices of one, is ambiguous to jax; a masked sum is not.
    drawn_NxV = jax.lax.broadcasted_iota(jnp.int32, logits_NxV.shape, 1) == token_N[:, None]
    pick = lambda logp_NxV: jnp.sum(jnp.where(drawn_NxV, logp_NxV, 0), axis=-1)  # noqa: E731
    return Drawn(
        token_N=token_N,
        sampling_logp_N=pick(sampling_logp_NxV),
        model_logp_N=pick(model_logp_NxV),
        entropy_N=-jnp.sum(p_NxV * model_logp_NxV, axis=-1),
    )


def choose(p_NxV: jax.Array, key_N: Key) -> jax.Array:
    """Draws a token a row by its probability: a block of tokens by the block's, then one within it.

    Two uniform numbers a row, where the largest of V Gumbel variables takes V of them; each level has few
    enough outcomes for float32. A token of probability 0 is never drawn.
    """
    N, V = p_NxV.shape
    width = 2 ** math.ceil(math.log2(V) / 2)
    p_NxRxW = jnp.pad(p_NxV, ((0, 0), (0, -V % width))).reshape(N, -1, width)
    uniform_Nx2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(key_N)

    def first_above(p_NxO, uniform_N):
        sum_NxO = jnp.cumsum(p_NxO, axis=1)
        index_NxO = jax.lax.broadcasted_iota(jnp.int32, p_NxO.shape, 1)
        last_Nx1 = jnp.max(jnp.where(p_NxO > 0, index_NxO, 0), axis=1, keepdims=True)
        # Sums are rounded: they may rise where p is 0, and the highest may be below the target.
        above_NxO = (p_NxO > 0) & (sum_NxO > uniform_N[:, None] * sum_NxO[:, -1:])
        return jnp.min(jnp.where(above_NxO, index_NxO, last_Nx1), axis=1)

    block_N = first_above(p_NxRxW.sum(axis=2), uniform_Nx2[:, 0])
    chosen_NxRx1 = (
        jax.lax.broadcasted_iota(jnp.int32, p_NxRxW.shape[:2], 1)[:, :, None] == block_N[:, None, None]
    )
    p_NxW = jnp.sum(jnp.where(chosen_NxRx1, p_NxRxW, 0), axis=1)
    return block_N * width + first_above(p_NxW, uniform_Nx2[:, 1])
