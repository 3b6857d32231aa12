"""Grouped-query attention: over a row's own tokens, and over a prefix that a group shares."""

from typing import NamedTuple

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


class Scoring(NamedTuple):
    """How scores are made.

    Attributes:
      scale: multiplies q.k.
      softcap: c of ``c * tanh(score / c)`` (2408.00118, section 2); 0: off.
      window: int32 scalar, tokens that a query sees, its own included; None: all before it.
      block: queries of a row whose scores are held at once; 0: all.
    """

    scale: float
    softcap: float = 0.0
    window: Array | None = None
    block: int = 0


def head_axis(heads: int) -> str | None:
    """The mesh axis that heads are split over; None where it does not divide them, or there is only one."""
    ways = jax.sharding.get_abstract_mesh().shape["tensor"]
    return "tensor" if heads > 1 and heads % ways == 0 else None


def per_head(axis: str | None, rank: int = 4) -> P:
    """PartitionSpec of N x T x heads x ..., with the mesh axis of the heads."""
    return P(BATCH, None, axis, *(None,) * (rank - 3))


def attend(
    q_NxTxHxC: jax.Array, positions_NxT: jax.Array, own: Keys, prefix: Keys | None, how: Scoring
) -> jax.Array:
    """Grouped-query attention NxTxHxC.

    With ``how.block`` the scores of a block of queries exist at a time, and again in the
    backward pass: memory is linear in T, for one more product of queries and keys.

    Args:
      q_NxTxHxC: queries; H is a multiple of the J heads of the keys.
      positions_NxT: int32, theirs; a key is seen from its own position on.
      own: keys and values of the rows.
      prefix: those that each group of N / B rows shares, with B in place of N; or None.
      how: scale, window and the like.
    """
    T = q_NxTxHxC.shape[1]

    def of_block(q_NxTxHxC, positions_NxT):
        if prefix is None:
            return attend_with_normaliser(q_NxTxHxC, positions_NxT, own, how)[0]
        return attend_both(q_NxTxHxC, positions_NxT, own, prefix, how)

    if not 0 < how.block < T:
        return of_block(q_NxTxHxC, positions_NxT)
    fill = (0, -T % how.block)
    q_NxTxHxC = jnp.pad(q_NxTxHxC, ((0, 0), fill, (0, 0), (0, 0)))
    positions_NxT = jnp.pad(positions_NxT, ((0, 0), fill), constant_values=-1)
    split = lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, how.block, *x.shape[2:]), 1, 0)  # noqa: E731
    # A scan's body is not merged with its recomputation, so the guard against that can go.
    step = jax.checkpoint(lambda block: of_block(*block), prevent_cse=False)
    out = jnp.moveaxis(jax.lax.map(step, (split(q_NxTxHxC), split(positions_NxT))), 0, 1)
    return out.reshape(q_NxTxHxC.shape)[:, :T]


def attend_both(q_NxTxHxC, positions_NxT, own: Keys, prefix: Keys, how: Scoring) -> jax.Array:
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
    out_p, log_z_p = attend_with_normaliser(q_BxMxHxC, positions_BxM, prefix, how)
    out_s, log_z_s = attend_with_normaliser(q_NxTxHxC, positions_NxT, own, how)
    out_p = jnp.reshape(out_p, (N, T, H, C), out_sharding=per_head(axis))
    log_z_p = jnp.reshape(log_z_p, (N, T, H), out_sharding=per_head(axis, 3))
    share_p = jax.nn.sigmoid(log_z_p - log_z_s)[..., None].astype(out_p.dtype)
    return share_p * out_p + (1 - share_p) * out_s


def attend_with_normaliser(q_NxTxHxC, positions_NxT, keys: Keys, how: Scoring) -> tuple[jax.Array, jax.Array]:
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
    score_NxJxRxTxS = how.scale * jnp.einsum(
        "ntjrc,njsc->njrts", q_NxTxJxRxC, keys.k_NxJxSxC, preferred_element_type=jnp.float32
    )
    if how.softcap:
        score_NxJxRxTxS = how.softcap * jnp.tanh(score_NxJxRxTxS / how.softcap)
    seen_NxTxS = visible(positions_NxT, keys.positions_NxS, how.window)
    score_NxJxRxTxS = jnp.where(seen_NxTxS[:, None, None], score_NxJxRxTxS, MASKED)
    highest = jax.lax.stop_gradient(jnp.max(score_NxJxRxTxS, axis=-1, keepdims=True))
    weight_NxJxRxTxS = jnp.exp(score_NxJxRxTxS - highest)
    z_NxJxRxT = jnp.sum(weight_NxJxRxTxS, axis=-1)
    out = jnp.einsum(
        "njrts,njsc->ntjrc",
        weight_NxJxRxTxS.astype(keys.v_NxJxSxC.dtype),
        keys.v_NxJxSxC,
        preferred_element_type=jnp.float32,
    )
    turn = lambda x_NxJxRxT: jnp.moveaxis(x_NxJxRxT, 3, 1)  # noqa: E731
    out = (out / turn(z_NxJxRxT)[..., None]).astype(keys.v_NxJxSxC.dtype)
    log_z = turn(jnp.log(z_NxJxRxT) + highest[..., 0])
    return (
        jnp.reshape(out, (N, T, H, C), out_sharding=per_head(axis)),
        jnp.reshape(log_z, (N, T, H), out_sharding=per_head(axis, 3)),
    )
