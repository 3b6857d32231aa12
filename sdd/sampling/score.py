"""Hidden states of given responses, aligned so that entry t predicts response token t."""

import jax
import jax.numpy as jnp

from sdd.mesh import rows
from sdd.model import Model, empty, fork
from sdd.model.cache import repeat_rows
from sdd.sampling.loop import left_padded_positions
from sdd.types import Params

TILED = 256  # tokens; shorter responses are read without their last token


def response_hidden(
    model: Model, params: Params, context_BxP: jax.Array, context_length_B: jax.Array, response_NxT: jax.Array
) -> jax.Array:
    """Hidden states NxTxE that predict each response token; differentiable in ``params``.

    A context is read once and shared by the ``G = N / B`` responses that follow it.
    Since contexts are padded on the left, a response starts at the same column for
    every row and every context: student and teachers are aligned by construction.

    Args:
      model: the decoder.
      params: its parameters.
      context_BxP: int32, left-padded contexts; row n of the responses follows context n // G.
      context_length_B: int32, their real lengths, at least 1.
      response_NxT: int32, right-padded responses.
    """
    B, P = context_BxP.shape
    N, T = response_NxT.shape
    if N == B:
        return unshared_response_hidden(model, params, context_BxP, context_length_B, response_NxT)
    context_length_B = jax.sharding.reshard(jnp.asarray(context_length_B), rows(1))
    positions_BxP = left_padded_positions(context_length_B, P, P)
    hidden_BxPxE, cache = model.apply(params, context_BxP, positions_BxP, empty(model.config, B, P))
    first_Nx1xE = repeat_rows(hidden_BxPxE[:, -1:], N // B)
    if T == 1:
        return first_Nx1xE
    R = tokens_read(T)
    positions_NxR = repeat_rows(context_length_B, N // B)[:, None] + jnp.arange(R, dtype=jnp.int32)
    cache = fork(cache, model.config, N // B, R)
    hidden_NxRxE, _ = model.apply(params, response_NxT[:, :R], positions_NxR, cache)
    return jnp.concatenate([first_Nx1xE, hidden_NxRxE[:, : T - 1]], axis=1)


def tokens_read(num_tokens: int) -> int:
    """How many of T response tokens are read: the last predicts nothing that is scored, and is left out.

    Not so in long responses of whole tiles: TPUs lay eight rows in a tile, and an array of T - 1 rows is
    moved as a whole, by code as long as itself, each time it is reshaped to one axis of tokens.
    """
    return num_tokens if num_tokens >= TILED and num_tokens % 8 == 0 else num_tokens - 1


def unshared_response_hidden(
    model: Model, params: Params, context_NxP: jax.Array, context_length_N: jax.Array, response_NxT: jax.Array
) -> jax.Array:
    """:func:`response_hidden` with a context a row, from one plain forward pass."""
    P, T = context_NxP.shape[1], response_NxT.shape[1]
    tokens_NxS = jax.sharding.reshard(jnp.asarray(context_NxP), rows(2))
    R = tokens_read(T)
    if R > 0:
        read_NxR = jax.sharding.reshard(jnp.asarray(response_NxT), rows(2))[:, :R]
        tokens_NxS = jnp.concatenate([tokens_NxS, read_NxR], axis=1)
    positions_NxS = left_padded_positions(context_length_N, P, P + R)
    hidden_NxSxE, _ = model.apply(params, tokens_NxS, positions_NxS)
    return hidden_NxSxE[:, P - 1 : P + T - 1]
