"""The key/value cache, in two segments: a prefix shared by a group, and each row's own tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import ModelConfig
from sdd.mesh import BATCH, P, rows
from sdd.model.attention import head_axis


class Cache(NamedTuple):
    """Keys and values of tokens already read.

    Row ``n`` of the suffix reads row ``n // G`` of the prefix, with ``G = N / B``.

    Attributes:
      prefix_k_LxBxPxJxC, prefix_v_LxBxPxJxC: keys and values shared by a group; P may be 0.
      prefix_positions_BxP: int32 positions of the prefix; negative marks padding.
      k_LxNxSxJxC, v_LxNxSxJxC: keys and values of the rows' own tokens.
      positions_NxS: int32, negative where nothing has been written, or padding was.
      length: int32 scalar, columns of the suffix written so far, the same for all rows.
      last_token_N: int32, the newest token of each row (what token shift needs).
    """

    prefix_k_LxBxPxJxC: jax.Array
    prefix_v_LxBxPxJxC: jax.Array
    prefix_positions_BxP: jax.Array
    k_LxNxSxJxC: jax.Array
    v_LxNxSxJxC: jax.Array
    positions_NxS: jax.Array
    length: jax.Array
    last_token_N: jax.Array


def empty(config: ModelConfig, num_rows: int, capacity: int) -> Cache:
    """A cache with no prefix and room for ``capacity`` tokens in each of ``num_rows`` rows."""

    def zeros(columns):
        shape = (config.num_layers, num_rows, columns, config.num_kv_heads, config.head_dim)
        heads = head_axis(config.num_kv_heads)
        return jnp.zeros(shape, config.compute_dtype, out_sharding=P(None, BATCH, None, heads, None))

    return Cache(
        prefix_k_LxBxPxJxC=zeros(0),
        prefix_v_LxBxPxJxC=zeros(0),
        prefix_positions_BxP=jnp.full((num_rows, 0), -1, jnp.int32, out_sharding=rows(2)),
        k_LxNxSxJxC=zeros(capacity),
        v_LxNxSxJxC=zeros(capacity),
        positions_NxS=jnp.full((num_rows, capacity), -1, jnp.int32, out_sharding=rows(2)),
        length=jnp.zeros((), jnp.int32),
        last_token_N=jnp.zeros((num_rows,), jnp.int32, out_sharding=rows(1)),
    )


def fork(cache: Cache, config: ModelConfig, group_size: int, capacity: int) -> Cache:
    """Splits each row into ``group_size`` rows which share what was read so far, uncopied.

    Raises:
      ValueError: the cache has been forked already.
    """
    if cache.prefix_positions_BxP.shape[1]:
        raise ValueError("fork: this cache has a prefix already; a cache forks once, after its prefill")
    num_prompts = cache.positions_NxS.shape[0]
    fresh = empty(config, num_prompts * group_size, capacity)
    return fresh._replace(
        prefix_k_LxBxPxJxC=cache.k_LxNxSxJxC,
        prefix_v_LxBxPxJxC=cache.v_LxNxSxJxC,
        prefix_positions_BxP=cache.positions_NxS,
        last_token_N=repeat_rows(cache.last_token_N, group_size),
    )


def repeat_rows(x_Bx: jax.Array, group_size: int) -> jax.Array:
    """Row ``b`` becomes rows ``b*G .. b*G+G-1``; the rows stay on the device of their prompt."""
    x_Bx = jax.sharding.reshard(jnp.asarray(x_Bx), rows(x_Bx.ndim))
    x_BxGx = jnp.broadcast_to(
        x_Bx[:, None], (x_Bx.shape[0], group_size, *x_Bx.shape[1:]), out_sharding=rows(x_Bx.ndim + 1)
    )
    return jnp.reshape(x_BxGx, (-1, *x_Bx.shape[1:]), out_sharding=rows(x_Bx.ndim))
