"""Grouped-query attention: over a row's own tokens, and over a prefix that a group shares."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdd.mesh import BATCH, P
from sdd.model.kinds import visible
from sdd.types import Array

MASKED = -1e30  # finite, so that a row that sees nothing has finite gradients


class Keys(NamedTuple):
    """What queries may look at; heads come before columns, so that a head's keys lie together.

    Attributes:
      k_NxJxSxC, v_NxJxSxC: keys and values.
      positions_NxS: int32; negative marks padding and columns that are not written.
    """

    k_NxJxSxC: jax.Array
    v_NxJxSxC: jax.Array
    positions_NxS: jax.Array


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How scores are made.

    Attributes:
      scale: multiplies q.k.
      softcap: c of ``c * tanh(score / c)`` (2408.00118, section 2); 0: off.
      block: queries of a row whose scores are held at once; 0: all.
    """

    scale: float
    softcap: float = 0.0
    block: int = 0


def head_axis(heads: int) -> str | None:
    """The mesh axis that heads are split over; None where it does not divide them, or there is only one."""
    ways = jax.sharding.get_abstract_mesh().shape["tensor"]
    return "tensor" if heads > 1 and heads % ways == 0 else None


def per_head(axis: str | None, rank: int = 4) -> P:
    """PartitionSpec of N x T x heads x ..., with the mesh axis of the heads."""
    return P(BATCH, None, axis, *(None,) * (rank - 3))


def attend(
    q_NxTxHxC: jax.Array,
    positions_NxT: jax.Array,
    own: Keys,
    prefix: Keys | None,
    window: Array | None,
    how: Scoring,
) -> jax.Array:
    """Grouped-query attention NxTxHxC.

    Args:
      q_NxTxHxC: queries; H is a multiple of the J heads of the keys.
      positions_NxT: int32, theirs; a key is seen from its own position on.
      own: keys and values of the rows.
      prefix: those that each group of N / B rows shares, with B in place of N; or None.
      window: int32 scalar, tokens that a query sees, its own included; None: all before it.
      how: scale and the like.
    """
    if prefix is None:
        return attend_with_normaliser(q_NxTxHxC, positions_NxT, own, window, how)[0]
    return attend_both(q_NxTxHxC, positions_NxT, own, prefix, window, how)


def attend_both(q_NxTxHxC, positions_NxT, own: Keys, prefix: Keys, window, how: Scoring) -> jax.Array:
    """Attention over a prefix that a group shares and each row's own tokens.

    The group's queries are read as one longer query (M = G*T), so that the prefix
    is read once a prompt. The two softmaxes are joined by their normalisers:
    ``o = (o_p e^{z_p} + o_s e^{z_s}) / (e^{z_p} + e^{z_s})``. A query whose window
    ends before the prefix has ``z_p`` near -1e30, and so takes nothing from it.
    """
    N, T, H, C = q_NxTxHxC.shape
    B = prefix.positions_NxS.shape[0]
    axis = jax.typeof(q_NxTxHxC).sharding.spec[2]
    q_BxMxHxC = jnp.reshape(q_NxTxHxC, (B, N // B * T, H, C), out_sharding=per_head(axis))
    positions_BxM = jnp.reshape(positions_NxT, (B, N // B * T), out_sharding=P(BATCH, None))
    of_group = dataclasses.replace(how, block=how.block * N // B)
    out_p, log_z_p = attend_with_normaliser(q_BxMxHxC, positions_BxM, prefix, window, of_group)
    out_s, log_z_s = attend_with_normaliser(q_NxTxHxC, positions_NxT, own, window, how)
    out_p = jnp.reshape(out_p, (N, T, H, C), out_sharding=per_head(axis))
    log_z_p = jnp.reshape(log_z_p, (N, T, H), out_sharding=per_head(axis, 3))
    share_p = jax.nn.sigmoid(log_z_p - log_z_s)[..., None].astype(out_p.dtype)
    return share_p * out_p + (1 - share_p) * out_s


def attend_with_normaliser(q_NxTxHxC, positions_NxT, keys: Keys, window, how: Scoring):
    """Grouped-query attention NxTxHxC and the log of its softmax's normaliser NxTxH, in float32.

    jax.nn.dot_product_attention offers the normaliser too, but cut off from the gradient (jax 0.10):
    joined softmaxes would train wrongly, without an error. It also knows no softcap, cannot split the
    queries of a single key/value head, and loses the sharding of a single row (jax 0.12).
    """
    N, T, H, C = q_NxTxHxC.shape
    J = keys.k_NxJxSxC.shape[1]
    axis, kv_axis = jax.typeof(q_NxTxHxC).sharding.spec[2], jax.typeof(keys.k_NxJxSxC).sharding.spec[1]
    # Queries are split as their keys are: by groups, or within the only one, or not at all.
    grouped = P(BATCH, None, kv_axis, axis if J == 1 else None, None)
    q_NxTxJxRxC = jnp.reshape(q_NxTxHxC, (N, T, J, H // J, C), out_sharding=grouped)
    out, log_z = softmax_attention(how, jnp.moveaxis(q_NxTxJxRxC, 1, 3), positions_NxT, keys, window)
    return (
        jnp.reshape(jnp.moveaxis(out, 3, 1), (N, T, H, C), out_sharding=per_head(axis)),
        jnp.reshape(jnp.moveaxis(log_z, 3, 1), (N, T, H), out_sharding=per_head(axis, 3)),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def softmax_attention(how: Scoring, q_NxJxRxTxC, positions_NxT, keys: Keys, window):
    """Attention NxJxRxTxC and its softmax's log-normaliser NxJxRxT, of a block of queries at a time.

    The backward pass makes the scores again from what is linear in T (FlashAttention, 2205.14135), with
    gradients written out: left to jax, they took three times as long on a CPU.
    """
    return forward(how, q_NxJxRxTxC, positions_NxT, keys, window)[0]


def forward(how: Scoring, q_NxJxRxTxC, positions_NxT, keys: Keys, window):
    """((attention, log-normaliser), what the backward pass needs)."""

    def of_block(block):
        q, positions = block
        score, _ = scores(how, q, positions, keys, window)
        highest = jnp.max(score, axis=-1, keepdims=True)
        weight = jnp.exp(score - highest)
        z = jnp.sum(weight, axis=-1, keepdims=True)
        v = keys.v_NxJxSxC
        out = jnp.einsum("njrts,njsc->njrtc", weight.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (out / z).astype(v.dtype), (highest + jnp.log(z))[..., 0]

    T, blocks = positions_NxT.shape[1], split(how.block, (q_NxJxRxTxC, 3), (positions_NxT, 1))
    each = jax.lax.map(of_block, blocks) if blocks else of_block((q_NxJxRxTxC, positions_NxT))
    result = (join(each[0], 3, T), join(each[1], 3, T)) if blocks else each
    return result, (q_NxJxRxTxC, positions_NxT, keys, window, *result)


def backward(how: Scoring, residuals, gradients):
    """Gradients of queries, keys and values.

    With p the softmax and o its mean of v: ``ds = p (do.v - do.o + dz)``, ``dq = ds k``, ``dk = ds^T q`` and
    ``dv = p^T do``.
    """
    q_NxJxRxTxC, positions_NxT, keys, window, out, log_z = residuals
    k, v = keys.k_NxJxSxC, keys.v_NxJxSxC
    d_out, d_log_z = gradients
    d_sum = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1) - d_log_z
    # Sums over queries end as their keys are split, whoever holds the queries.
    whole = dict(preferred_element_type=jnp.float32, out_sharding=jax.typeof(k.swapaxes(2, 3)).sharding.spec)

    def of_block(block):
        q, positions, log_z, d_out, d_sum = block
        score, slope = scores(how, q, positions, keys, window)
        weight = jnp.exp(score - log_z[..., None])
        d_weight = jnp.einsum("njrtc,njsc->njrts", d_out, v, preferred_element_type=jnp.float32)
        d_score = weight * (d_weight - d_sum[..., None]) * (how.scale * slope)
        d_score, weight = d_score.astype(k.dtype), weight.astype(v.dtype)
        d_q = jnp.einsum("njrts,njsc->njrtc", d_score, k)
        d_k = jnp.einsum("njrtc,njrts->njcs", q, d_score, **whole)
        d_v = jnp.einsum("njrtc,njrts->njcs", d_out, weight, **whole)
        return d_q, (d_k, d_v)

    inputs = (q_NxJxRxTxC, positions_NxT, log_z, d_out, d_sum)
    blocks = split(how.block, *zip(inputs, (3, 1, 3, 3, 3), strict=True))
    if blocks:
        zero = jnp.zeros_like(k.swapaxes(2, 3), dtype=jnp.float32)

        def add(sums, block):
            d_q, parts = of_block(block)
            return jax.tree.map(jnp.add, sums, parts), d_q

        (d_k, d_v), each = jax.lax.scan(add, (zero, zero), blocks)
        d_q = join(each, 3, positions_NxT.shape[1])
    else:
        d_q, (d_k, d_v) = of_block(inputs)
    d_k, d_v = (x.swapaxes(2, 3).astype(like.dtype) for x, like in ((d_k, k), (d_v, v)))
    no_gradient: Any = None  # of positions
    return d_q.astype(q_NxJxRxTxC.dtype), None, Keys(d_k, d_v, no_gradient), None


softmax_attention.defvjp(forward, backward)


def scores(how: Scoring, q_NxJxRxTxC, positions_NxT, keys: Keys, window):
    """Scores NxJxRxTxS in float32, masked, and the soft cap's derivative where they are."""
    score = how.scale * jnp.einsum(
        "njrtc,njsc->njrts", q_NxJxRxTxC, keys.k_NxJxSxC, preferred_element_type=jnp.float32
    )
    slope: jax.Array | float = 1.0
    if how.softcap:
        tanh = jnp.tanh(score / how.softcap)
        score, slope = how.softcap * tanh, 1 - tanh**2
    seen_NxTxS = visible(positions_NxT, keys.positions_NxS, window)
    return jnp.where(seen_NxTxS[:, None, None], score, MASKED), slope


def split(block: int, *arrays: tuple[jax.Array, int]) -> tuple[jax.Array, ...]:
    """Arrays with their axis of T queries cut into blocks, which come first; () where one block is enough."""
    T = arrays[0][0].shape[arrays[0][1]]
    if not 0 < block < T:
        return ()

    def one(x, axis):
        fill = [(0, 0)] * x.ndim
        fill[axis] = (0, -T % block)  # queries at position 0 whose gradient is 0
        shape = (*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(x, fill).reshape(shape), axis, 0)

    return tuple(one(x, axis) for x, axis in arrays)


def join(blocks: jax.Array, axis: int, num_queries: int) -> jax.Array:
    """What `split` cut, without the filling."""
    x = jnp.moveaxis(blocks, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, num_queries, axis=axis)
