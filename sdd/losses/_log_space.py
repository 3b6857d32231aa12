"""What the divergences are made of: log-probabilities, terms an outcome, top-k supports, mixtures."""

import functools
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from sdd.types import Array

Kind = Literal["reverse", "forward", "js"]
Support = Literal["student", "teacher"]
Remainder = Literal["tail", "renormalise"]
Combine = Literal["loss_mean", "mixture"]

# Stands for log 0. Finite, so that 0 * (log 0 - log 0) is 0 in value and gradient.
LOG_ZERO = -1e30


class Divergence(NamedTuple):
    """A divergence and how much of each distribution its support covers.

    Attributes:
      value: nats, shape (...).
      teacher_mass: probability that the teacher gives the support, shape (...), no gradient.
      student_mass: the same for the student.
    """

    value: jax.Array
    teacher_mass: jax.Array
    student_mass: jax.Array


def at_least_float32(x: Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def log_normaliser(logits_xV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log sum exp over V as (maximum, log of the rest's sum), each with V of size 1.

    Everything is made of this one form, so that a compiler that sees it twice computes it once.
    """
    top_x1 = jax.lax.stop_gradient(jnp.max(logits_xV, axis=-1, keepdims=True))
    return top_x1, jnp.log(jnp.sum(jnp.exp(logits_xV - top_x1), axis=-1, keepdims=True))


def log_probs(logits_xV: Array) -> jax.Array:
    """log softmax over V in at least float32, with a finite log 0."""
    logits_xV = at_least_float32(logits_xV)
    top_x1, log_sum_x1 = log_normaliser(logits_xV)
    logp_xV = (logits_xV - top_x1) - log_sum_x1
    return jnp.where(logp_xV < LOG_ZERO, LOG_ZERO, logp_xV)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def exact(student_xV: jax.Array, teacher_logp_xV: jax.Array, kind: str, js_weight: float) -> jax.Array:
    """Divergence over all outcomes, of logits in at least float32 and log-probabilities; V goes.

    Other axes of the student may be 1 where the teacher's are not. Automatic differentiation would sum over
    V again in the backward pass; here the sums of the forward pass are all that the gradient needs.
    ``kind`` is already resolved.
    """
    return _exact_forward(student_xV, teacher_logp_xV, kind, js_weight)[0]


def _exact_forward(student_xV, teacher_logp_xV, kind, js_weight):
    student_logp_xV = log_probs(student_xV)
    if kind != "js":
        value = jnp.sum(outcome_terms(student_logp_xV, teacher_logp_xV, kind, js_weight), axis=-1)
        return value, (student_xV, teacher_logp_xV, value)
    student_p, teacher_p, mixture_logp = _mixed(student_logp_xV, teacher_logp_xV, js_weight)
    student_kl = jnp.sum(student_p * (student_logp_xV - mixture_logp), axis=-1)
    teacher_kl = jnp.sum(teacher_p * (teacher_logp_xV - mixture_logp), axis=-1)
    value = (1 - js_weight) * student_kl + js_weight * teacher_kl
    return value, (student_xV, teacher_logp_xV, student_kl)


def _exact_backward(kind, js_weight, kept, change):
    """With g = d terms / d log S, the student's logits get g - S sum g; the teacher's part is plain.

    Per outcome g is S (log S - log T + 1), -T, or (1-a) S (log S - log M): its sum is in ``kept``.
    """
    student_xV, teacher_logp_xV, sum_x = kept
    student_logp_xV = log_probs(student_xV)
    change_x1, sum_x1 = change[..., None], sum_x[..., None]
    student_p, teacher_p = jnp.exp(student_logp_xV), jnp.exp(teacher_logp_xV)
    if kind == "reverse":
        to_student = student_p * (student_logp_xV - teacher_logp_xV - sum_x1)
        to_teacher = -student_p
    elif kind == "forward":
        to_student = student_p - teacher_p
        to_teacher = teacher_p * (teacher_logp_xV - student_logp_xV + 1)
    else:
        student_p, teacher_p, mixture_logp = _mixed(student_logp_xV, teacher_logp_xV, js_weight)
        to_student = (1 - js_weight) * student_p * (student_logp_xV - mixture_logp - sum_x1)
        to_teacher = js_weight * teacher_p * (teacher_logp_xV - mixture_logp)
    shared = [i for i in range(change.ndim) if student_xV.shape[i] != change.shape[i]]
    to_student = jnp.sum(change_x1 * to_student, axis=shared, keepdims=True)
    return to_student, change_x1 * to_teacher


exact.defvjp(_exact_forward, _exact_backward)


def _mixed(student_logp: jax.Array, teacher_logp: jax.Array, js_weight: float) -> tuple[jax.Array, ...]:
    """S, T and log M of the Jensen-Shannon divergence; M of an outcome that neither has is not 0."""
    student_p, teacher_p = jnp.exp(student_logp), jnp.exp(teacher_logp)
    mixture = (1 - js_weight) * student_p + js_weight * teacher_p
    return student_p, teacher_p, jnp.log(jnp.maximum(mixture, jnp.finfo(mixture.dtype).tiny))


def outcome_terms(student_logp: jax.Array, teacher_logp: jax.Array, kind: str, js_weight: float) -> jax.Array:
    """What each outcome adds to the divergence; ``kind`` is already resolved."""
    student_p, teacher_p = jnp.exp(student_logp), jnp.exp(teacher_logp)
    if kind == "reverse":
        return student_p * (student_logp - teacher_logp)
    if kind == "forward":
        return teacher_p * (teacher_logp - student_logp)
    a = js_weight
    mixture_logp = jnp.logaddexp(student_logp + math.log1p(-a), teacher_logp + math.log(a))
    return (1 - a) * student_p * (student_logp - mixture_logp) + a * teacher_p * (teacher_logp - mixture_logp)


def top_k_of(
    student_xV: jax.Array,
    teacher_logp_xV: jax.Array,
    k: int,
    support: str,
    remainder: str,
    kind: str,
    js_weight: float,
) -> Divergence:
    """`divergence.top_k_divergence` of logits and log-probabilities; the student's axes may be 1."""
    student_xV = at_least_float32(student_xV)
    if k == student_xV.shape[-1]:
        value = exact(student_xV, teacher_logp_xV, kind, js_weight)
        return Divergence(value, jnp.ones_like(value), jnp.ones_like(value))
    student_logp_xV = log_probs(student_xV)
    inside_xV = top_k_mask(student_logp_xV if support == "student" else teacher_logp_xV, k)
    student_in_xV = jnp.where(inside_xV, student_logp_xV, LOG_ZERO)
    teacher_in_xV = jnp.where(inside_xV, teacher_logp_xV, LOG_ZERO)
    masses = [
        jnp.sum(jnp.exp(jax.lax.stop_gradient(x_xV)), axis=-1) for x_xV in (teacher_in_xV, student_in_xV)
    ]
    if remainder == "renormalise":
        student_in_xV, teacher_in_xV = log_probs(student_in_xV), log_probs(teacher_in_xV)
    value = jnp.sum(outcome_terms(student_in_xV, teacher_in_xV, kind, js_weight), axis=-1)
    if remainder == "tail":
        student_tail = jax.nn.logsumexp(jnp.where(inside_xV, LOG_ZERO, student_logp_xV), axis=-1)
        teacher_tail = jax.nn.logsumexp(jnp.where(inside_xV, LOG_ZERO, teacher_logp_xV), axis=-1)
        value += outcome_terms(student_tail, teacher_tail, kind, js_weight)
    # With a broadcast student the student's mass may miss the K dimension.
    return Divergence(value, *(jnp.broadcast_to(mass, value.shape) for mass in masses))


def top_k_mask(score_xV: jax.Array, k: int) -> jax.Array:
    """True on the k largest entries of the last axis (the first ones among equals)."""
    score_xV = jax.lax.stop_gradient(score_xV)
    spec = jax.typeof(score_xV).sharding.spec
    sharded = len(spec) == score_xV.ndim and spec[-1] is not None
    if sharded:  # top_k needs the whole of V on each device
        score_xV = jax.sharding.reshard(score_xV, jax.P(*spec[:-1], None))
    # Without the barrier XLA joins it with the slices below, and then sorts all of V instead (CPU, jax 0.10).
    value_xk, index_xk = jax.lax.optimization_barrier(jax.lax.top_k(score_xV, k))
    # top_k puts the lower index first among equals, so its last entry tells where the ties were cut.
    position_xV = jax.lax.broadcasted_iota(jnp.int32, score_xV.shape, score_xV.ndim - 1)
    tied_xV = (score_xV == value_xk[..., -1:]) & (position_xV <= index_xk[..., -1:])
    inside_xV = (score_xV > value_xk[..., -1:]) | tied_xV
    return jax.sharding.reshard(inside_xV, jax.P(*spec)) if sharded else inside_xV


def normalise_weights(weights_NxK: Array) -> tuple[jax.Array, jax.Array]:
    """Weights that sum to 1 (uniform where a row has none), and which rows have any."""
    weights_NxK = jnp.asarray(weights_NxK, jnp.float32)
    total_N = jnp.sum(weights_NxK, axis=1)
    present_N = total_N > 0
    scaled_NxK = weights_NxK / jnp.where(present_N, total_N, 1)[:, None]
    return jnp.where(present_N[:, None], scaled_NxK, 1 / weights_NxK.shape[1]), present_N


def log_mixture(logp_NxKx: jax.Array, weight_NxK: jax.Array) -> jax.Array:
    """log sum_k w_k exp(logp_k) over axis 1."""
    weight_NxK = weight_NxK.astype(logp_NxKx.dtype)
    log_weight_NxK = jnp.where(weight_NxK > 0, jnp.log(jnp.where(weight_NxK > 0, weight_NxK, 1)), LOG_ZERO)
    log_weight_NxKx = jnp.expand_dims(log_weight_NxK, tuple(range(2, logp_NxKx.ndim)))
    return jnp.maximum(jax.nn.logsumexp(logp_NxKx + log_weight_NxKx, axis=1), LOG_ZERO)


def resolve_kind(kind: str, js_weight: float) -> str:
    """Checks the kind; Jensen-Shannon at an endpoint becomes the KL that it stands for."""
    check_name("kind", kind, Kind)
    if not 0 <= js_weight <= 1:
        raise ValueError(f"js_weight is {js_weight}; valid: 0 to 1")
    if kind == "js" and js_weight in (0, 1):
        return "forward" if js_weight == 0 else "reverse"
    return kind


def check_top_k(k: int, vocabulary: int, support: str, remainder: str) -> None:
    check_name("support", support, Support)
    check_name("remainder", remainder, Remainder)
    if not 1 <= k <= vocabulary:
        raise ValueError(f"top-k is {k}; valid: 1 to {vocabulary}, the size of the vocabulary")


def check_name(what: str, name: str, valid: object) -> None:
    if name not in get_args(valid):
        raise ValueError(f"{what} is {name!r}; valid: {', '.join(get_args(valid))}")
