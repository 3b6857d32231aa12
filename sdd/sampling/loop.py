"""Prefill once a prompt, then decode its group together until every row has ended."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import SamplingConfig
from sdd.mesh import rows
from sdd.model import Cache, Model, empty, fork
from sdd.model.cache import repeat_rows
from sdd.sampling.filters import filter_logits
from sdd.types import Key, Params, Rollouts

# (params, context_BxP, context_length_B, row_id_N, key) -> Rollouts
Sampler = Callable[[Params, jax.Array, jax.Array, jax.Array, Key], Rollouts]


class DecodeState(NamedTuple):
    """What the decoding loop carries from token to token.

    Attributes:
      t: int32 scalar, tokens drawn so far.
      logits_NxV: the model's logits for the token that comes next.
      cache: keys and values of the contexts (shared by groups) and of the responses.
      ended_N: bool, rows that have drawn a stop token.
      response_NxT, mask_NxT, sampling_logp_NxT, model_logp_NxT, entropy_NxT: as in
        :class:`~sdd.types.Rollouts`, filled up to column ``t``.
      hidden_sum_NxE: float32, sum of the hidden states that tokens were drawn from, and that
        of the token that comes next.
    """

    t: jax.Array
    logits_NxV: jax.Array
    cache: Cache
    ended_N: jax.Array
    response_NxT: jax.Array
    mask_NxT: jax.Array
    sampling_logp_NxT: jax.Array
    model_logp_NxT: jax.Array
    entropy_NxT: jax.Array
    hidden_sum_NxE: jax.Array


class Drawn(NamedTuple):
    """One token a row; fields as in :class:`~sdd.types.Rollouts`."""

    token_N: jax.Array
    sampling_logp_N: jax.Array
    model_logp_N: jax.Array
    entropy_N: jax.Array


def make(
    model: Model, config: SamplingConfig, *, group_size: int, max_tokens: int, stop_ids: tuple[int, ...]
) -> Sampler:
    """Builds the jitted sampler of a model.

    The sampler takes ``(params, context_BxP, context_length_B, row_id_N, key)``:
    left-padded contexts with their lengths, a number for each rollout that its
    randomness depends on (``N = B * group_size``), and a key. A rollout depends on
    its context, its row id and the key alone, not on who shares its batch.

    Args:
      model: the policy.
      config: temperature and filters.
      group_size: G, rollouts a prompt; they share one prefill and one prompt cache.
      max_tokens: T, the longest response; one that reaches it has no stop token.
      stop_ids: tokens that end a response, each included in it.
    """

    def sample(params, context_BxP, context_length_B, row_id_N, key) -> Rollouts:
        context_BxP, context_length_B, row_id_N = (
            jax.sharding.reshard(jnp.asarray(x), rows(x.ndim))
            for x in (context_BxP, context_length_B, row_id_N)
        )
        key_N = jax.vmap(lambda i: jax.random.fold_in(key, i))(row_id_N)
        state = prefill(model, params, context_BxP, context_length_B, group_size, max_tokens)
        length_N = repeat_rows(context_length_B, group_size)

        def unfinished(state: DecodeState) -> jax.Array:
            return (state.t < max_tokens) & ~jnp.all(state.ended_N)

        def advance(state: DecodeState) -> DecodeState:
            drawn = draw(state.logits_NxV, key_N, state.t, config)
            state = record(state, drawn, stop_ids)
            hidden_Nx1xE, cache = model.apply(
                params, drawn.token_N[:, None], (length_N + state.t - 1)[:, None], state.cache
            )
            follows_Nx1 = (~state.ended_N & (state.t < max_tokens))[:, None]
            hidden_sum_NxE = state.hidden_sum_NxE + jnp.where(follows_Nx1, hidden_Nx1xE[:, 0], 0)
            logits_NxV = whole_logits(model, params, hidden_Nx1xE[:, 0])
            return state._replace(cache=cache, logits_NxV=logits_NxV, hidden_sum_NxE=hidden_sum_NxE)

        state = jax.lax.while_loop(unfinished, advance, state)
        return Rollouts(
            context_BxP=context_BxP,
            context_length_B=context_length_B,
            response_NxT=state.response_NxT,
            mask_NxT=state.mask_NxT,
            sampling_logp_NxT=state.sampling_logp_NxT,
            model_logp_NxT=state.model_logp_NxT,
            entropy_NxT=state.entropy_NxT,
            embedding_NxE=state.hidden_sum_NxE / state.mask_NxT.sum(axis=1, keepdims=True),
        )

    return jax.jit(sample)


def prefill(model: Model, params, context_BxP, context_length_B, group_size, max_tokens) -> DecodeState:
    """Reads each context once and lays its cache under the group's rows."""
    B, P = context_BxP.shape
    N = B * group_size
    hidden_BxPxE, cache = model.apply(
        params, context_BxP, left_padded_positions(context_length_B, P, P), empty(model.config, B, P)
    )
    logits_BxV = whole_logits(model, params, hidden_BxPxE[:, -1])
    blank = lambda dtype: jnp.zeros((N, max_tokens), dtype, out_sharding=rows(2))  # noqa: E731
    return DecodeState(
        t=jnp.zeros((), jnp.int32),
        logits_NxV=repeat_rows(logits_BxV, group_size),
        cache=fork(cache, model.config, group_size, max_tokens),
        ended_N=jnp.zeros((N,), bool, out_sharding=rows(1)),
        response_NxT=blank(jnp.int32),
        mask_NxT=blank(bool),
        sampling_logp_NxT=blank(jnp.float32),
        model_logp_NxT=blank(jnp.float32),
        entropy_NxT=blank(jnp.float32),
        hidden_sum_NxE=repeat_rows(hidden_BxPxE[:, -1], group_size).astype(jnp.float32),
    )


def left_padded_positions(length_N: jax.Array, context_columns: int, columns: int) -> jax.Array:
    """Positions of rows whose first ``context_columns`` are a left-padded context, N x columns.

    0 at the first real token, negative on the padding before it.
    """
    return jnp.arange(columns, dtype=jnp.int32)[None, :] - (context_columns - length_N[:, None])


def whole_logits(model: Model, params: Params, hidden_NxE: jax.Array) -> jax.Array:
    """Logits with the vocabulary whole on every device, as drawing and sorting need it."""
    return jax.sharding.reshard(model.unembed(params, hidden_NxE), rows(2))


def draw(logits_NxV: jax.Array, key_N: Key, t: jax.Array, config: SamplingConfig) -> Drawn:
    """Draws a token a row; the key of row n at token t is ``fold_in(key_n, t)``."""
    filtered_NxV = filter_logits(logits_NxV, config)
    key_N = jax.vmap(lambda k: jax.random.fold_in(k, t))(key_N)
    token_N = jax.vmap(jax.random.categorical)(key_N, filtered_NxV).astype(jnp.int32)
    pick = lambda logp_NxV: jnp.take_along_axis(logp_NxV, token_N[:, None], axis=-1)[:, 0]  # noqa: E731
    model_logp_NxV = jax.nn.log_softmax(logits_NxV)
    unfiltered = filtered_NxV is logits_NxV
    return Drawn(
        token_N=token_N,
        sampling_logp_N=pick(model_logp_NxV if unfiltered else jax.nn.log_softmax(filtered_NxV)),
        model_logp_N=pick(model_logp_NxV),
        entropy_N=-jnp.sum(jnp.exp(model_logp_NxV) * model_logp_NxV, axis=-1),
    )


def record(state: DecodeState, drawn: Drawn, stop_ids: tuple[int, ...]) -> DecodeState:
    """Writes column t; a row that has ended gets zeros and stays ended."""
    alive_N = ~state.ended_N

    def write(buffer_NxT, value_N):
        value_Nx1 = jnp.where(alive_N, value_N, jnp.zeros_like(value_N))[:, None]
        return jax.lax.dynamic_update_slice(buffer_NxT, value_Nx1.astype(buffer_NxT.dtype), (0, state.t))

    stopped_N = jnp.isin(drawn.token_N, jnp.asarray(stop_ids, jnp.int32))
    return state._replace(
        t=state.t + 1,
        ended_N=state.ended_N | stopped_N,
        response_NxT=write(state.response_NxT, drawn.token_N),
        mask_NxT=write(state.mask_NxT, jnp.ones_like(alive_N)),
        sampling_logp_NxT=write(state.sampling_logp_NxT, drawn.sampling_logp_N),
        model_logp_NxT=write(state.model_logp_NxT, drawn.model_logp_N),
        entropy_NxT=write(state.entropy_NxT, drawn.entropy_N),
    )
