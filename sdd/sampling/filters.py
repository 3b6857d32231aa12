"""Logits -> logits: temperature, top-k, top-p and min-p. What is cut becomes -inf."""

import jax
import jax.numpy as jnp

from sdd.config import SamplingConfig


def filter_logits(logits_NxV: jax.Array, config: SamplingConfig) -> jax.Array:
    """The logits of the distribution that tokens are drawn from.

    Filters apply in the order temperature, top-k, top-p, min-p, each to what the
    one before left. The most likely token always stays. Temperature 0 leaves only
    it (greedy). Every filter that is off costs nothing.

    Args:
      logits_NxV: float32 logits of the model.
      config: temperature; top_k (0: off); top_p in (0, 1] (1: off), the smallest set
        of tokens whose probability reaches it (1904.09751); min_p (0: off), tokens at
        least that share of the most likely one's probability (2407.01082).

    Returns:
      Logits NxV; tokens that may not be drawn are -inf.
    """
    if config.temperature == 0.0:
        vocabulary_V = jnp.arange(logits_NxV.shape[-1])
        return jnp.where(vocabulary_V == jnp.argmax(logits_NxV, -1)[:, None], 0.0, -jnp.inf)
    if config.temperature != 1.0:
        logits_NxV = logits_NxV / config.temperature
    if 0 < config.top_k < logits_NxV.shape[-1]:
        least_Nx1 = jax.lax.top_k(logits_NxV, config.top_k)[0][:, -1:]
        logits_NxV = jnp.where(logits_NxV >= least_Nx1, logits_NxV, -jnp.inf)
    if config.top_p < 1.0:
        sorted_NxV = -jnp.sort(-logits_NxV, axis=-1)
        probability_NxV = jax.nn.softmax(sorted_NxV, axis=-1)
        before_NxV = jnp.cumsum(probability_NxV, axis=-1) - probability_NxV
        # The last token that is needed to reach top_p; everything at least as likely stays.
        least_Nx1 = jnp.min(jnp.where(before_NxV < config.top_p, sorted_NxV, jnp.inf), -1, keepdims=True)
        logits_NxV = jnp.where(logits_NxV >= least_Nx1, logits_NxV, -jnp.inf)
    if config.min_p > 0.0:
        least_Nx1 = jnp.max(logits_NxV, axis=-1, keepdims=True) + jnp.log(config.min_p)
        logits_NxV = jnp.where(logits_NxV >= least_Nx1, logits_NxV, -jnp.inf)
    return logits_NxV
