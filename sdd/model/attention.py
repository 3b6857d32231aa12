"""Grouped-query attention: over one sequence, or over a prefix that a group shares and a row's own suffix."""

import jax
import jax.numpy as jnp

from sdd.mesh import BATCH, P


def head_axis(heads: int) -> str | None:
    """The mesh axis that heads are split over; None where it does not divide them, or there is only one."""
    ways = jax.sharding.get_abstract_mesh().shape["tensor"]
    return "tensor" if heads > 1 and heads % ways == 0 else None


def per_head(axis: str | None, rank: int = 4) -> P:
    """PartitionSpec of N x T x heads x ..., with the mesh axis of the heads."""
    return P(BATCH, None, axis, *(None,) * (rank - 3))


def attend(q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask_NxTxS, scale: float, softcap: float = 0.0) -> jax.Array:
    """Grouped-query attention NxTxHxC.

    Args:
      q_NxTxHxC, k_NxSxJxC, v_NxSxJxC: H is a multiple of J.
      mask_NxTxS: True where a query sees a key.
      scale: multiplies the scores.
      softcap: c of ``c * tanh(score / c)`` (2408.00118, section 2); 0: off.
    """
    # jax.nn.dot_product_attention knows no softcap, cannot split the queries of a single key/value head, and
    # loses the sharding of a single row (jax 0.12).
    if softcap or 1 in (k_NxSxJxC.shape[0], k_NxSxJxC.shape[2]):
        return attend_with_normaliser(q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask_NxTxS, scale, softcap)[0]
    axis = jax.typeof(q_NxTxHxC).sharding.spec[2]
    q_NxTxHxC = jax.sharding.reshard(q_NxTxHxC, jax.typeof(k_NxSxJxC).sharding.spec)
    out_NxTxHxC = jax.nn.dot_product_attention(
        q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask=mask_NxTxS[:, None], scale=scale, implementation="xla"
    )
    return jax.sharding.reshard(out_NxTxHxC, per_head(axis))


def attend_with_normaliser(q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask_NxTxS, scale: float, softcap: float = 0.0):
    """Grouped-query attention NxTxHxC and the log of its softmax's normaliser NxTxH, in float32.

    jax.nn.dot_product_attention offers the normaliser too, but cut off from the
    gradient (jax 0.10): the joined softmax below would train wrongly, without an error.
    """
    N, T, H, C = q_NxTxHxC.shape
    J = k_NxSxJxC.shape[2]
    axis, kv_axis = (jax.typeof(x).sharding.spec[2] for x in (q_NxTxHxC, k_NxSxJxC))
    # Queries are split as their keys are: by groups, or within the only one, or not at all.
    grouped = P(BATCH, None, kv_axis, axis if J == 1 else None, None)
    q_NxTxJxRxC = jnp.reshape(q_NxTxHxC, (N, T, J, H // J, C), out_sharding=grouped)
    score_NxTxJxRxS = jnp.einsum(
        "ntjrc,nsjc->ntjrs", q_NxTxJxRxC, k_NxSxJxC, preferred_element_type=jnp.float32
    )
    score_NxTxJxRxS = score_NxTxJxRxS * scale
    if softcap:
        score_NxTxJxRxS = softcap * jnp.tanh(score_NxTxJxRxS / softcap)
    masked = jnp.where(mask_NxTxS[:, :, None, None, :], score_NxTxJxRxS, -1e30)
    log_z_NxTxJxR = jax.nn.logsumexp(masked, axis=-1)
    weight = jnp.exp(masked - log_z_NxTxJxR[..., None]).astype(v_NxSxJxC.dtype)
    out = jnp.einsum("ntjrs,nsjc->ntjrc", weight, v_NxSxJxC)
    return (
        jnp.reshape(out, (N, T, H, C), out_sharding=per_head(axis)),
        jnp.reshape(log_z_NxTxJxR, (N, T, H), out_sharding=per_head(axis, 3)),
    )


def attend_shared_prefix(
    q_NxTxHxC, prefix, suffix, prefix_mask_BxMxP, suffix_mask_NxTxS, scale: float, softcap: float = 0.0
) -> jax.Array:
    """Attention over a prefix that a group shares and each row's own suffix.

    The group's queries are read as one longer query (M = G*T), so that the prefix
    is read once a prompt. The two softmaxes are joined by their normalisers:
    ``o = (o_p e^{z_p} + o_s e^{z_s}) / (e^{z_p} + e^{z_s})``. A query whose window
    ends before the prefix has ``z_p`` near -1e30, and so takes nothing from it.
    """
    N, T, H, C = q_NxTxHxC.shape
    B = prefix[0].shape[0]
    axis = jax.typeof(q_NxTxHxC).sharding.spec[2]
    q_BxMxHxC = jnp.reshape(q_NxTxHxC, (B, N // B * T, H, C), out_sharding=per_head(axis))
    out_p, log_z_p = attend_with_normaliser(
        q_BxMxHxC, prefix[0], prefix[1], prefix_mask_BxMxP, scale, softcap
    )
    out_s, log_z_s = attend_with_normaliser(
        q_NxTxHxC, suffix[0], suffix[1], suffix_mask_NxTxS, scale, softcap
    )
    out_p = jnp.reshape(out_p, (N, T, H, C), out_sharding=per_head(axis))
    log_z_p = jnp.reshape(log_z_p, (N, T, H), out_sharding=per_head(axis, 3))
    share_p = jax.nn.sigmoid(log_z_p - log_z_s)[..., None].astype(out_p.dtype)
    return share_p * out_p + (1 - share_p) * out_s
