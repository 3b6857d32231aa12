"""The key/value cache, in two segments: a prefix shared by a group, and each row's own tokens."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import ModelConfig
from sdd.mesh import BATCH, P, rows
from sdd.model.attention import Keys, head_axis


class Cache(NamedTuple):
    """Keys and values of tokens already read.

    Row ``n`` of the suffix reads row ``n // G`` of the prefix, with ``G = N / B``.

    Keys and values of the layers are one array with L in front, which a scan over layers reads, or a tuple
    of L arrays (see :func:`apart`), which a loop over tokens changes in place.

    Attributes:
      prefix_k_LxBxJxPxC, prefix_v_LxBxJxPxC: keys and values shared by a group; P may be 0.
      prefix_positions_BxP: int32 positions of the prefix; negative marks padding.
      k_LxNxJxSxC, v_LxNxJxSxC: keys and values of the rows' own tokens.
      positions_NxS: int32, negative where nothing has been written, or padding was.
      length: int32 scalar, the column of the suffix that is written next, the same for all rows.
      last_token_N: int32, the newest token of each row (what token shift needs).
    """

    prefix_k_LxBxJxPxC: Any
    prefix_v_LxBxJxPxC: Any
    prefix_positions_BxP: jax.Array
    k_LxNxJxSxC: Any
    v_LxNxJxSxC: Any
    positions_NxS: jax.Array
    length: jax.Array
    last_token_N: jax.Array


class LayerCache(NamedTuple):
    """One layer's part of a cache, with the positions of the tokens that are about to be written.

    Attributes:
      prefix: what a group shares; None where there is no prefix.
      own: the rows' own tokens.
      length: int32 scalar, the column of ``own`` that is written next.
    """

    prefix: Keys | None
    own: Keys
    length: jax.Array


def empty(config: ModelConfig, num_rows: int, capacity: int) -> Cache:
    """A cache with no prefix and room for ``capacity`` tokens in each of ``num_rows`` rows."""

    def zeros(columns):
        shape = (config.num_layers, num_rows, config.num_kv_heads, columns, config.head_dim)
        heads = head_axis(config.num_kv_heads)
        return jnp.zeros(shape, config.compute_dtype, out_sharding=P(None, BATCH, heads, None, None))

    return Cache(
        prefix_k_LxBxJxPxC=zeros(0),
        prefix_v_LxBxJxPxC=zeros(0),
        prefix_positions_BxP=jnp.full((num_rows, 0), -1, jnp.int32, out_sharding=rows(2)),
        k_LxNxJxSxC=zeros(capacity),
        v_LxNxJxSxC=zeros(capacity),
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
        prefix_k_LxBxJxPxC=cache.k_LxNxJxSxC,
        prefix_v_LxBxJxPxC=cache.v_LxNxJxSxC,
        prefix_positions_BxP=cache.positions_NxS,
        last_token_N=repeat_rows(cache.last_token_N, group_size),
    )


def apart(cache: Cache) -> Cache:
    """The cache with an array a layer: a loop over tokens then writes columns without copying the rest."""
    return cache._replace(
        prefix_k_LxBxJxPxC=tuple(cache.prefix_k_LxBxJxPxC),
        prefix_v_LxBxJxPxC=tuple(cache.prefix_v_LxBxJxPxC),
        k_LxNxJxSxC=tuple(cache.k_LxNxJxSxC),
        v_LxNxJxSxC=tuple(cache.v_LxNxJxSxC),
    )


def repeat_rows(x_Bx: jax.Array, group_size: int) -> jax.Array:
    """Row ``b`` becomes rows ``b*G .. b*G+G-1``; the rows stay on the device of their prompt."""
    x_Bx = jax.sharding.reshard(jnp.asarray(x_Bx), rows(x_Bx.ndim))
    x_BxGx = jnp.broadcast_to(
        x_Bx[:, None], (x_Bx.shape[0], group_size, *x_Bx.shape[1:]), out_sharding=rows(x_Bx.ndim + 1)
    )
    return jnp.reshape(x_BxGx, (-1, *x_Bx.shape[1:]), out_sharding=rows(x_Bx.ndim))
