"""The policy's own embedding of a rollout: the mean of its hidden states over the response."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sdd.mesh import rows
from sdd.model import Model
from sdd.sampling.score import response_hidden
from sdd.types import Params, Rollouts

NAME = "policy"


def pooled_hidden(hidden_NxTxE: jax.Array, mask_NxT: jax.Array) -> jax.Array:
    """Mean of the hidden states over the real tokens, float32 NxE; zeros for a row without a token.

    Args:
      hidden_NxTxE: hidden states; what stands on the padding is not read, whatever it is.
      mask_NxT: bool, True on real tokens.
    """
    mask_NxTx1 = jnp.asarray(mask_NxT, bool)[..., None]
    sum_NxE = jnp.sum(jnp.where(mask_NxTx1, hidden_NxTxE.astype(jnp.float32), 0), axis=1)
    return sum_NxE / jnp.maximum(jnp.sum(mask_NxTx1, axis=1), 1)


def make(model: Model) -> Callable[[Params, Rollouts], jax.Array]:
    """Returns the jitted ``(params, rollouts) -> float32 NxE``, rows over the mesh as the rollouts are.

    The hidden states are those of :func:`sdd.sampling.score.response_hidden`, after the
    last norm: entry t is what predicts response token t. So the mean takes in the state
    at the context's last token and leaves out the state at the response's last one (the
    stop token, or the last token of a response that was cut off), which predicts nothing.

    A row depends on its context and response alone. Call it under ``jax.set_mesh``.
    """

    def embed(params: Params, rollouts: Rollouts) -> jax.Array:
        context_BxP, length_B, response_NxT, mask_NxT = (
            jax.sharding.reshard(jnp.asarray(x), rows(x.ndim))
            for x in (
                rollouts.context_BxP,
                rollouts.context_length_B,
                rollouts.response_NxT,
                rollouts.mask_NxT,
            )
        )
        return pooled_hidden(response_hidden(model, params, context_BxP, length_B, response_NxT), mask_NxT)

    return jax.jit(embed)
