"""Divergences between the student's and the teacher's next-token distributions.

S is the student, T the teacher, V the vocabulary; ``...`` stands for any batch
dimensions. The arithmetic is in float32 (float64 for float64 inputs) whatever
the dtype of the logits. Everything is differentiable in both distributions; a
caller that wants no gradient in the teacher stops it there. All functions work
without a mesh, and under one with Explicit axes where the batch dimensions, and
V too, may be sharded.
"""

import chex
import jax
import jax.numpy as jnp

from sdd.losses._log_space import (
    LOG_ZERO,
    Combine,
    Divergence,
    Kind,
    Remainder,
    Support,
    at_least_float32,
    check_name,
    check_top_k,
    exact,
    log_mixture,
    log_normaliser,
    log_probs,
    normalise_weights,
    resolve_kind,
    top_k_of,
)
from sdd.types import Array

__all__ = [
    "Combine",
    "Divergence",
    "Kind",
    "Remainder",
    "Support",
    "divergence",
    "divergence_to_teachers",
    "entropy",
    "sampled_token_advantage",
    "token_logp",
    "top_k_divergence",
]


def token_logp(logits_xV: Array, token: Array) -> jax.Array:
    """Log-probability of given tokens: log softmax(logits)[token].

    Args:
      logits_xV: (..., V).
      token: integers, (...); an id outside 0..V-1 gives 0.

    Returns:
      nats, (...), float32.
    """
    chex.assert_shape(token, logits_xV.shape[:-1])
    chex.assert_type(token, int)
    logits_xV, token = at_least_float32(logits_xV), jnp.asarray(token)
    top_x1, log_sum_x1 = log_normaliser(logits_xV)
    # A comparison instead of a gather, so that V may be sharded.
    index_xV = jax.lax.broadcasted_iota(jnp.int32, logits_xV.shape, logits_xV.ndim - 1)
    logit = jnp.sum(jnp.where(index_xV == token[..., None], logits_xV, 0), axis=-1)
    logp = (logit - top_x1[..., 0]) - log_sum_x1[..., 0]
    inside = (token >= 0) & (token < logits_xV.shape[-1])
    return jnp.where(inside, jnp.where(logp < LOG_ZERO, LOG_ZERO, logp), 0)


def entropy(logits_xV: Array) -> jax.Array:
    """Entropy H(S) = - sum_v S(v) log S(v), in nats.

    Args:
      logits_xV: (..., V).

    Returns:
      (...), float32.
    """
    chex.assert_axis_dimension_gt(logits_xV, -1, 0)
    logp_xV = log_probs(logits_xV)
    return -jnp.sum(jnp.exp(logp_xV) * logp_xV, axis=-1)


def divergence(
    student_logits_xV: Array, teacher_logits_xV: Array, kind: Kind, js_weight: float = 0.5
) -> jax.Array:
    """Exact divergence over the vocabulary, one number a position.

    - ``reverse``: KL(S||T) = sum_v S(v) (log S(v) - log T(v)), mode-seeking.
    - ``forward``: KL(T||S) = sum_v T(v) (log T(v) - log S(v)), mass-covering.
    - ``js``, generalised Jensen-Shannon of GKD (arXiv 2306.13649) with a = js_weight:
      M = (1-a) S + a T and (1-a) KL(S||M) + a KL(T||M). It goes to 0 as a goes to
      0 or 1, so the endpoints are by definition the limits after division by a or
      1-a: a = 0 is ``forward``, a = 1 is ``reverse``.

    Args:
      student_logits_xV: (..., V).
      teacher_logits_xV: (..., V).
      kind: one of the above.
      js_weight: a, in [0, 1]; read by ``js`` only.

    Returns:
      nats, (...).

    Raises:
      ValueError: for an unknown kind or a weight outside [0, 1].
    """
    chex.assert_equal_shape([student_logits_xV, teacher_logits_xV])
    resolved = resolve_kind(kind, js_weight)
    return exact(at_least_float32(student_logits_xV), log_probs(teacher_logits_xV), resolved, js_weight)


def top_k_divergence(
    student_logits_xV: Array,
    teacher_logits_xV: Array,
    k: int,
    support: Support,
    remainder: Remainder,
    kind: Kind,
    js_weight: float = 0.5,
) -> Divergence:
    """Divergence restricted to the k likeliest tokens of the student or the teacher.

    With U the k likeliest tokens of the distribution that ``support`` names:

    - ``tail``: D between (S(u) for u in U, 1 - sum_U S) and (T(u) for u in U, 1 - sum_U T).
      Merging tokens into one bucket never raises a divergence: a lower bound of the exact one.
    - ``renormalise``: D between S(u) / sum_U S and T(u) / sum_U T.

    The tail's log(1 - sum_U) is the log-sum-exp of the tokens outside U, which
    neither cancels nor needs a clip when U holds almost everything. U itself
    carries no gradient. k = V is the exact divergence.

    Args:
      student_logits_xV: (..., V).
      teacher_logits_xV: (..., V).
      k: 1..V.
      support: whose k likeliest tokens.
      remainder: what becomes of the rest.
      kind: see `divergence`.
      js_weight: see `divergence`.

    Returns:
      The divergence in nats and the mass that U captures, each (...).

    Raises:
      ValueError: for an unknown name, a weight outside [0, 1] or k outside 1..V.
    """
    chex.assert_equal_shape([student_logits_xV, teacher_logits_xV])
    resolved = resolve_kind(kind, js_weight)
    check_top_k(k, student_logits_xV.shape[-1], support, remainder)
    options = (k, support, remainder, resolved, js_weight)
    return top_k_of(student_logits_xV, log_probs(teacher_logits_xV), *options)


def divergence_to_teachers(
    student_logits_NxTxV: Array,
    teacher_logits_NxKxTxV: Array,
    weights_NxK: Array,
    *,
    combine: Combine,
    kind: Kind,
    js_weight: float = 0.5,
    top_k: int = 0,
    support: Support = "student",
    remainder: Remainder = "tail",
) -> Divergence:
    """Divergence of a student to K weighted teachers.

    - ``loss_mean``: sum_k w_k D(S, T_k). For the exact reverse KL this is the
      divergence to the normalised geometric mean prod_k T_k^w_k plus a constant.
    - ``mixture``: D(S, sum_k w_k T_k).

    Args:
      student_logits_NxTxV: the student.
      teacher_logits_NxKxTxV: the teachers; must be finite even where the weight is 0.
      weights_NxK: non-negative; each row is divided by its sum, 0 means that the
        teacher is absent. A row without any weight has the value 0 (and masses
        that mean nothing).
      combine: one of the above.
      kind: see `divergence`.
      js_weight: see `divergence`.
      top_k: 0 for the exact divergence, else k of `top_k_divergence`. With the
        teacher's support, each teacher (or the mixture) has its own.
      support: see `top_k_divergence`.
      remainder: see `top_k_divergence`.

    Returns:
      Divergence and captured masses (1 when exact; the weighted mean over the
      teachers for ``loss_mean``), each (N, T).

    Raises:
      ValueError: as `top_k_divergence`, or for an unknown ``combine``.
    """
    N, K, T, V = teacher_logits_NxKxTxV.shape
    chex.assert_shape(student_logits_NxTxV, (N, T, V))
    chex.assert_shape(weights_NxK, (N, K))
    check_name("combine", combine, Combine)
    resolved = resolve_kind(kind, js_weight)
    if top_k:
        check_top_k(top_k, V, support, remainder)
    weight_NxK, present_N = normalise_weights(weights_NxK)
    options = (top_k or V, support, remainder, resolved, js_weight)
    teacher_logp_NxKxTxV = log_probs(teacher_logits_NxKxTxV)
    if combine == "mixture":
        logp_NxTxV = log_mixture(teacher_logp_NxKxTxV, weight_NxK)
        result = top_k_of(student_logits_NxTxV, logp_NxTxV, *options)
    else:
        each_NxKxT = top_k_of(student_logits_NxTxV[:, None], teacher_logp_NxKxTxV, *options)
        result = jax.tree.map(lambda x_NxKxT: jnp.sum(weight_NxK[:, :, None] * x_NxKxT, axis=1), each_NxKxT)
    return result._replace(value=jnp.where(present_N[:, None], result.value, 0))


def sampled_token_advantage(
    student_logp_NxT: Array,
    teacher_logp_NxKxT: Array,
    weights_NxK: Array,
    mask_NxT: Array,
    combine: Combine,
    return_to_go: bool,
) -> jax.Array:
    """Advantage whose policy gradient is that of the reverse KL, from sampled tokens only.

    r_t = log T(y_t) - log S(y_t), and A_t = r_t, or sum_{s >= t} r_s with
    ``return_to_go``. For y drawn from S, E[- sum_t A_t grad log S(y_t)] is the
    gradient of the sequence's KL(S||T) with return-to-go; without, it is the
    gradient of the sum of per-token KLs at prefixes that are held fixed.

    Args:
      student_logp_NxT: nats, log S(y_t), under the distribution that y was drawn from.
      teacher_logp_NxKxT: nats, log T_k(y_t).
      weights_NxK: as in `divergence_to_teachers`; a row without weight has advantage 0.
      mask_NxT: bool, the real tokens.
      combine: ``loss_mean``: log T = sum_k w_k log T_k; ``mixture``: log T = log sum_k w_k T_k.
      return_to_go: whether later tokens count.

    Returns:
      nats, (N, T), without gradient, 0 outside the mask.

    Raises:
      ValueError: for an unknown ``combine``.
    """
    N, K, T = teacher_logp_NxKxT.shape
    chex.assert_shape([student_logp_NxT, mask_NxT], (N, T))
    chex.assert_shape(weights_NxK, (N, K))
    check_name("combine", combine, Combine)
    weight_NxK, present_N = normalise_weights(weights_NxK)
    if combine == "mixture":
        teacher_logp_NxT = log_mixture(jnp.asarray(teacher_logp_NxKxT), weight_NxK)
    else:
        teacher_logp_NxT = jnp.sum(weight_NxK[:, :, None] * teacher_logp_NxKxT, axis=1)
    keep_NxT = jnp.asarray(mask_NxT, bool) & present_N[:, None]
    reward_NxT = jnp.where(keep_NxT, teacher_logp_NxT - student_logp_NxT, 0)
    if return_to_go:
        reward_NxT = jnp.where(keep_NxT, jax.lax.cumsum(reward_NxT, axis=1, reverse=True), 0)
    return jax.lax.stop_gradient(reward_NxT)
